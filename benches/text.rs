//! The text tower at the shape of OpenAI's ViT-B CLIPs (12 layers, W 512, 8 heads, D 512), with names as long as
//! ImageNet's: encoding the classes, one step of exact R-TPT, and the same step without anything shared.
//!
//! `cargo bench --bench text` prints a table. With `-- --serve` it answers requests on standard input, `STAGE CLASSES
//! THREADS`, with seconds; `benches/text_against_pytorch.py` uses that to take turns with PyTorch.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array2, ArrayView2};
use rtpt_edge::internal::method::{ContextModel, Decide, Material, prepare};
use rtpt_edge::internal::rows::unit_rows;
use rtpt_edge::internal::text::{Activation, PromptTokens, Prompts, TextTower, TowerShape, TowerStyle};
use rtpt_edge::{Method, MethodSettings};

#[path = "../tests/suite/toy.rs"]
#[allow(dead_code)]
mod toy;

const SHAPE: TowerShape = TowerShape {
    layers: 12,
    width: 512,
    heads: 8,
    context_length: 77,
    vocabulary: 1000,
    embedding: 512,
    hidden: 2048,
    activation: Activation::QuickGelu,
    style: TowerStyle::CLIP,
};
/// Start token and "a photo of a".
const SHARED: [u32; 5] = [998, 320, 117, 539, 320];
/// Tokens of twenty names, as they are spread over ImageNet's 1,000: 1 to 12, on average 2.2.
const NAME_TOKENS: [usize; 20] = [2, 1, 2, 3, 2, 1, 2, 5, 2, 1, 2, 3, 2, 1, 2, 4, 2, 1, 2, 3];
/// Tokens of a padded prompt in R-TPT's reference code.
const PADDED: usize = 40;
const VIEWS: usize = 64;
const ROUNDS: usize = 5;

/// The prompts of so many classes: what each adds to the shared beginning.
fn own_tokens(classes: usize) -> Vec<Vec<u32>> {
    let name = |class: usize| (0..NAME_TOKENS[class % 20]).map(move |place| ((class * 31 + place * 7) % 990) as u32);
    // The full stop and the end token.
    (0..classes).map(|class| name(class).chain([269, 999]).collect()).collect()
}

/// Everything one size needs.
struct Subject {
    tower: Arc<TextTower<f32>>,
    prompts: Prompts<f32>,
    padded: Prompts<f32>,
    method: Box<dyn Decide<f32>>,
    classes: Array2<f32>,
    features: Array2<f32>,
}

impl Subject {
    fn new(tower: &Arc<TextTower<f32>>, classes: usize) -> Self {
        let own = own_tokens(classes);
        let read = |shared: &[u32], own: Vec<Vec<u32>>| {
            Prompts::read(tower, &PromptTokens { shared: shared.to_vec(), fixed: 1, own })
                .expect("all tokens are in the table")
        };
        // Nothing but the start token is shared, and every prompt is filled up to the same length.
        let fill = |name: &Vec<u32>| {
            let filler = PADDED - SHARED.len() - name.len();
            [&SHARED[1..], name, &vec![0; filler]].concat()
        };
        let padded = read(&SHARED[..1], own.iter().map(fill).collect());
        let prompts = read(&SHARED, own);
        let embedded = tower.encode(&tower.prefix(prompts.shared()), &prompts);
        let noise =
            Array2::from_shape_fn((VIEWS, SHAPE.embedding), |(v, d)| ((v * 37 + d * 11) % 101) as f32 / 500.0 - 0.1);
        let features = unit_rows(noise + embedded.row(0)).rows;
        let context = Some(Arc::new(ContextModel::new(tower.clone(), prompts.clone())));
        let settings = MethodSettings::of(Method::named("context").expect("a row of the table"));
        let method = prepare(&settings, Material { classes: embedded.view(), context });
        Self { tower: tower.clone(), prompts, padded, method, classes: embedded, features }
    }

    /// Seconds of one run of a stage.
    fn seconds(&self, stage: &str) -> f64 {
        let began = Instant::now();
        match stage {
            "encode" => drop(self.tower.encode(&self.tower.prefix(self.prompts.shared()), &self.prompts)),
            "step" => drop(self.method.decide(self.features.view(), self.classes.view(), 100.0)),
            // Forward, backward and forward again, as one step does it.
            "naive" => {
                let forward = || self.tower.encode(&self.tower.prefix(self.padded.shared()), &self.padded);
                let table: Array2<f32> = forward();
                let gradient: ArrayView2<f32> = table.view();
                drop(self.tower.backward(&self.tower.prefix(self.padded.shared()), &self.padded, gradient));
                drop(forward());
            }
            other => panic!("no stage {other:?}"),
        }
        began.elapsed().as_secs_f64()
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
}

/// Answers `STAGE CLASSES THREADS` with seconds, a line each.
fn serve(tower: &Arc<TextTower<f32>>) {
    let mut subject: Option<Subject> = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let [stage, classes, threads] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let (classes, threads): (usize, usize) =
            (classes.parse().expect("a number"), threads.parse().expect("a number"));
        let subject = match &mut subject {
            Some(subject) if subject.classes.nrows() == classes => subject,
            slot => slot.insert(Subject::new(tower, classes)),
        };
        println!("{}", pool(threads).install(|| subject.seconds(stage)));
    }
}

/// Resident memory (MiB) by a line of `/proc/self/status`.
fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    value.map_or(f64::NAN, |kibibytes: f64| kibibytes / 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(tower: &Arc<TextTower<f32>>) {
    println!(
        "{:>7} {:>7} {:>12} {:>12} {:>12} {:>14}",
        "classes", "threads", "encode", "exact step", "naive step", "step, memory"
    );
    for classes in [10, 100, 1000] {
        let subject = Subject::new(tower, classes);
        for threads in [1, 2] {
            let pool = pool(threads);
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            let before = memory("VmRSS:");
            // Forgets the peak so far.
            let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
            pool.install(|| subject.seconds("step"));
            let extra = if reset { memory("VmHWM:") - before } else { f64::NAN };
            for round in 0..ROUNDS {
                for (times, stage) in times.iter_mut().zip(["encode", "step", "naive"]) {
                    // Half a minute each is enough of the naive one.
                    if stage != "naive" || classes < 1000 || round == 0 {
                        times.push(pool.install(|| subject.seconds(stage)));
                    }
                }
            }
            let [encode, step, naive] = times.map(|times| median(times) * 1e3);
            println!("{classes:7} {threads:7} {encode:9.1} ms {step:9.1} ms {naive:9.1} ms {extra:10.1} MiB");
        }
    }
}

fn main() {
    let tower = Arc::new(toy::toy_tower::<f32>(SHAPE));
    if std::env::args().any(|argument| argument == "--serve") { serve(&tower) } else { table(&tower) }
}
