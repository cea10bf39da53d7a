//! The text tower against the naive one, central differences and PyTorch.

use ndarray::{Array1, Array2, ArrayView2, s};
use rtpt_edge::internal::rows::Real;
use rtpt_edge::internal::text::{Activation, Pooling, PromptTokens, Prompts, TextTower, TowerShape, TowerStyle};
use safetensors::tensor::Dtype;

use crate::goldens::Goldens;
use crate::toy::{ToyTensor, renamed_as_openai, stored, toy, toy_shape, toy_tensors, toy_tower, whole_shape};

/// CLIP's text transformer as it is written down: every prompt alone, padded to one length, in f64.
struct Naive {
    shape: TowerShape,
    tensors: Vec<ToyTensor>,
}

impl Naive {
    fn new(shape: TowerShape) -> Self {
        Self { shape, tensors: toy_tensors(shape) }
    }

    fn matrix(&self, name: &str) -> Array2<f64> {
        let (_, shape, values) = self.tensors.iter().find(|tensor| tensor.0 == name).unwrap();
        let rows = if shape.len() == 2 { shape[0] } else { 1 };
        let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        Array2::from_shape_vec((rows, values.len() / rows), values).unwrap()
    }

    fn linear(&self, name: &str, x: &Array2<f64>) -> Array2<f64> {
        x.dot(&self.matrix(&format!("{name}.weight")).t()) + self.matrix(&format!("{name}.bias"))
    }

    fn norm(&self, name: &str, x: &Array2<f64>) -> Array2<f64> {
        let mut y = x.clone();
        for mut row in y.rows_mut() {
            let mean = row.mean().unwrap();
            let deviation =
                (row.mapv(|value| (value - mean).powi(2)).mean().unwrap() + self.shape.style.epsilon).sqrt();
            row.mapv_inplace(|value| (value - mean) / deviation);
        }
        y * self.matrix(&format!("{name}.weight")) + self.matrix(&format!("{name}.bias"))
    }

    /// The unit embedding of one prompt: token embeddings of the prefix, then tokens, then padding to the whole length.
    fn encode(&self, prefix: ArrayView2<f64>, own: &[u32]) -> Array1<f64> {
        let table = self.matrix("text_model.embeddings.token_embedding.weight");
        let (length, whole) = (self.shape.context_length, self.shape.style.whole);
        let padding = whole.map_or(0, |whole| whole.padding as usize);
        let read = match whole.map(|whole| whole.pooling) {
            Some(Pooling::Last) => length - 1,
            _ => prefix.nrows() + own.len() - 1,
        };
        let mut x = self.matrix("text_model.embeddings.position_embedding.weight");
        for row in 0..length {
            let token = if row < prefix.nrows() {
                prefix.row(row)
            } else {
                table.row(own.get(row - prefix.nrows()).map_or(padding, |&token| token as usize))
            };
            x.row_mut(row).scaled_add(1.0, &token);
        }
        for layer in 0..self.shape.layers {
            let at = format!("text_model.encoder.layers.{layer}");
            let h = self.norm(&format!("{at}.layer_norm1"), &x);
            let [q, k, v] = ["q", "k", "v"].map(|part| self.linear(&format!("{at}.self_attn.{part}_proj"), &h));
            let size = self.shape.width / self.shape.heads;
            let mut attended = Array2::zeros(x.dim());
            for head in 0..self.shape.heads {
                let columns = s![.., head * size..(head + 1) * size];
                let (q, k, v) = (q.slice(columns), k.slice(columns), v.slice(columns));
                let mut scores = q.dot(&k.t()) / (size as f64).sqrt();
                for ((row, column), score) in scores.indexed_iter_mut() {
                    *score = if column > row && whole.is_none() { 0.0 } else { score.exp() };
                }
                for mut row in scores.rows_mut() {
                    let sum = row.sum();
                    row /= sum;
                }
                attended.slice_mut(columns).assign(&scores.dot(&v));
            }
            x += &self.linear(&format!("{at}.self_attn.out_proj"), &attended);
            let up = self.linear(&format!("{at}.mlp.fc1"), &self.norm(&format!("{at}.layer_norm2"), &x));
            let activated = up.mapv(|u| match self.shape.activation {
                Activation::QuickGelu => u / (1.0 + (-1.702 * u).exp()),
                Activation::Gelu => u * 0.5 * (1.0 + libm::erf(u / 2.0_f64.sqrt())),
                Activation::GeluTanh => {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u.powi(3));
                    u * 0.5 * (1.0 + inner.tanh())
                }
            });
            x += &self.linear(&format!("{at}.mlp.fc2"), &activated);
        }
        let h = self.norm("text_model.final_layer_norm", &x);
        let mut embedding = self.matrix("text_projection.weight").dot(&h.row(read));
        if self.tensors.iter().any(|tensor| tensor.0 == "text_projection.bias") {
            embedding += &self.matrix("text_projection.bias").row(0);
        }
        &embedding / embedding.dot(&embedding).sqrt()
    }
}

/// Prompts of 1 to `longest` tokens before the end token, of tokens that differ from class to class.
fn names(classes: usize, longest: usize) -> Vec<Vec<u32>> {
    let token = |class: usize, place: usize| ((class * 7 + place * 13 + class * class) % 58) as u32;
    let name = |class: usize| (0..class % longest + 1).map(move |place| token(class, place)).chain([59]).collect();
    (0..classes).map(name).collect()
}

fn prefix_tokens(context: usize) -> Vec<u32> {
    (0..=context as u32).map(|index| index * 5 % 58).collect()
}

fn prompts<T: Real>(tower: &TextTower<T>, shared: &[u32], own: &[Vec<u32>]) -> Prompts<T> {
    Prompts::read(tower, &PromptTokens { shared: shared.to_vec(), fixed: 1, own: own.to_vec() }).unwrap()
}

/// Unit embeddings of all prompts, each alone.
fn naive_embeddings(naive: &Naive, prefix: ArrayView2<f64>, own: &[Vec<u32>]) -> Array2<f64> {
    let mut table = Array2::zeros((own.len(), naive.shape.embedding));
    table.rows_mut().into_iter().zip(own).for_each(|(mut row, own)| row.assign(&naive.encode(prefix, own)));
    table
}

fn largest_difference(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest: f64, difference| if difference <= largest { largest } else { difference })
}

#[test]
fn shared_prefixes_give_what_every_prompt_gives_alone() {
    for activation in [Activation::QuickGelu, Activation::Gelu] {
        let shape = TowerShape { activation, ..toy_shape() };
        let (tower, single, naive) = (toy_tower::<f64>(shape), toy_tower::<f32>(shape), Naive::new(shape));
        for (classes, longest, context) in [(1, 1, 1), (2, 12, 4), (13, 12, 16), (100, 5, 4), (300, 12, 2)] {
            let case = format!("{activation:?}, {classes} classes, {context} context tokens");
            let (shared, own) = (prefix_tokens(context), names(classes, longest));
            let rows = prompts(&tower, &shared, &own);
            let expected = naive_embeddings(&naive, rows.shared(), &own);
            let found = tower.encode(&tower.prefix(rows.shared()), &rows);
            assert!(largest_difference(&found, &expected) < 1e-12, "{case}");
            let rows = prompts(&single, &shared, &own);
            let found = single.encode(&single.prefix(rows.shared()), &rows).mapv(f64::from);
            let scale = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            assert!(largest_difference(&found, &expected) < 1e-5 * scale, "{case} in f32");
        }
    }
}

#[test]
fn texts_seen_whole_give_what_the_naive_tower_gives() {
    for pooling in [Pooling::End, Pooling::Last] {
        let shape = whole_shape(pooling);
        let (tower, single, naive) = (toy_tower::<f64>(shape), toy_tower::<f32>(shape), Naive::new(shape));
        for (classes, longest, shared) in [(1, 1, vec![]), (7, 12, prefix_tokens(4)), (30, 4, prefix_tokens(12))] {
            let case = format!("{pooling:?}, {classes} classes, {} shared tokens", shared.len());
            let own = names(classes, longest);
            let rows = prompts(&tower, &shared, &own);
            let expected = naive_embeddings(&naive, rows.shared(), &own);
            let found = tower.encode(&tower.prefix(rows.shared()), &rows);
            assert!(largest_difference(&found, &expected) < 1e-12, "{case}");
            let rows = prompts(&single, &shared, &own);
            let found = single.encode(&single.prefix(rows.shared()), &rows).mapv(f64::from);
            assert!(largest_difference(&found, &expected) < 1e-5, "{case} in f32");
        }
        // What fills a text up counts: the tower is not causal.
        let mut other = shape;
        other.style.whole.as_mut().unwrap().padding = 4;
        let own = names(3, 4);
        let embeddings = |shape: TowerShape| {
            let tower = toy_tower::<f64>(shape);
            let rows = prompts(&tower, &prefix_tokens(2), &own);
            tower.encode(&tower.prefix(rows.shared()), &rows)
        };
        assert!(largest_difference(&embeddings(shape), &embeddings(other)) > 1e-3);
    }
}

/// Compares the gradient of the shared beginning with central differences of the naive tower, every row in some columns.
fn assert_gradients_agree(tower: &TextTower<f64>, naive: &Naive, rows: &Prompts<f64>, own: &[Vec<u32>]) {
    let prefix = rows.shared();
    let weights =
        Array2::from_shape_fn((own.len(), naive.shape.embedding), |(c, d)| ((c * 3 + d * 5) % 7) as f64 - 3.0);
    let gradient = tower.backward(&tower.prefix(prefix), rows, weights.view());
    assert_eq!(gradient.dim(), prefix.dim());
    for index in ndarray::indices(prefix.dim()).into_iter().filter(|&(row, column)| (row + column) % 5 == 0) {
        let loss = |step: f64| {
            let mut moved = prefix.to_owned();
            moved[index] += step;
            (naive_embeddings(naive, moved.view(), own) * &weights).sum()
        };
        let numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        let found = gradient[index];
        assert!((numeric - found).abs() < 1e-7, "{index:?}: {numeric} and {found}");
    }
}

#[test]
fn gradients_of_texts_seen_whole_agree_with_central_differences() {
    for pooling in [Pooling::End, Pooling::Last] {
        let shape = whole_shape(pooling);
        let (tower, naive) = (toy_tower::<f64>(shape), Naive::new(shape));
        let own = names(7, 5);
        let rows = prompts(&tower, &prefix_tokens(4), &own);
        assert_gradients_agree(&tower, &naive, &rows, &own);
    }
}

#[test]
fn gradients_agree_with_central_differences_of_the_naive_tower() {
    for (activation, classes, longest, context) in
        [(Activation::QuickGelu, 1, 1, 1), (Activation::QuickGelu, 9, 12, 4), (Activation::Gelu, 4, 3, 16)]
    {
        let shape = TowerShape { activation, ..toy_shape() };
        let (tower, naive) = (toy_tower::<f64>(shape), Naive::new(shape));
        let own = names(classes, longest);
        let rows = prompts(&tower, &prefix_tokens(context), &own);
        assert_gradients_agree(&tower, &naive, &rows, &own);
    }
}

/// The prompts of `models/text_goldens.py`: what each adds to the shared beginning.
pub fn golden_prompts(classes: usize, vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |class: usize, place: usize| (class * 7 + place * 13 + class * class) as u32 % (vocabulary - 2);
    let name = |class: usize| (0..class % 6 + 1).map(move |place| token(class, place)).chain([vocabulary - 1]);
    (0..classes).map(|class| name(class).collect()).collect()
}

#[test]
fn the_real_shapes_kind_agrees_with_pytorch() {
    let goldens = Goldens::open("tower.safetensors");
    for (name, activation) in [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu)] {
        let shape = TowerShape {
            layers: 2,
            width: 512,
            heads: 8,
            context_length: 77,
            vocabulary: 600,
            embedding: 512,
            hidden: 2048,
            activation,
            style: TowerStyle::CLIP,
        };
        let tower = toy_tower::<f32>(shape);
        let own = golden_prompts(24, 600);
        let rows = prompts(&tower, &[598, 320, 117, 539, 320], &own);
        let prefix = tower.prefix(rows.shared());
        let embeddings = tower.encode(&prefix, &rows);
        let expected = goldens.matrix(&format!("{name}.embeddings"));
        let difference = largest_difference(&embeddings.mapv(f64::from), &expected);
        assert!(difference < 2e-6, "{name}: embeddings differ by {difference}");
        let (_, _, weights) = toy("weights", &[24, 512], 1.0);
        let weights = Array2::from_shape_vec((24, 512), weights).unwrap();
        let gradient = tower.backward(&prefix, &rows, weights.view()).mapv(f64::from);
        let expected = goldens.matrix(&format!("{name}.gradient"));
        let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let difference = largest_difference(&gradient.slice(s![1.., ..]).to_owned(), &expected);
        assert!(difference < 1e-5 * largest, "{name}: gradients up to {largest} differ by {difference}");
    }
}

#[test]
fn chunks_add_up_to_the_whole() {
    // 300 prompts of up to 13 rows are many chunks; each prompt alone is one.
    let tower = toy_tower::<f64>(toy_shape());
    let rows = prompts(&tower, &prefix_tokens(4), &names(300, 12));
    let weights = Array2::from_shape_fn((300, 8), |(c, d)| ((c * 3 + d * 5) % 7) as f64 - 3.0);
    let prefix = tower.prefix(rows.shared());
    let whole = tower.backward(&prefix, &rows, weights.view());
    let mut sum = Array2::zeros(whole.dim());
    for class in 0..300 {
        sum += &tower.backward(&prefix, &rows.select(&[class]), weights.slice(s![class..class + 1, ..]));
    }
    assert!(largest_difference(&whole, &sum) < 1e-9);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let tower = toy_tower::<f32>(toy_shape());
    let rows = prompts(&tower, &[58, 1, 2, 3, 4], &names(300, 12));
    let prefix = tower.prefix(rows.shared());
    let dembeddings = Array2::from_shape_fn((300, 8), |(c, d)| ((c * 3 + d * 5) % 7) as f32 - 3.0);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let table = tower.encode(&prefix, &rows);
            (table, tower.backward(&prefix, &rows, dembeddings.view()))
        })
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
}

#[test]
fn all_names_and_types_are_read() {
    let shape = toy_shape();
    let tensors = toy_tensors(shape);
    let expected = embeddings_of(&stored(&tensors, Dtype::F32), shape);
    for prefix in ["", "text."] {
        let renamed = stored(&renamed_as_openai(&tensors, prefix), Dtype::F32);
        assert_eq!(embeddings_of(&renamed, shape), expected, "OpenAI's names with {prefix:?}");
    }
    for (dtype, tolerance) in [(Dtype::F16, 5e-3), (Dtype::BF16, 4e-2)] {
        let rounded = embeddings_of(&stored(&tensors, dtype), shape);
        let difference = largest_difference(&rounded, &expected);
        assert!(difference > 1e-6 && difference < tolerance, "{dtype:?}: {difference}");
    }
}

fn embeddings_of(file: &[u8], shape: TowerShape) -> Array2<f64> {
    let weights = rtpt_edge::internal::text::WeightsFile::from_bytes("toy", file.to_vec()).unwrap();
    let tower = TextTower::<f64>::load(weights, shape).unwrap();
    let rows = prompts(&tower, &prefix_tokens(4), &names(7, 4));
    tower.encode(&tower.prefix(rows.shared()), &rows)
}
