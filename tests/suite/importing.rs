//! `rtpt bundle import`: published models become bundles that compute what PyTorch does, and others are refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use rtpt_edge::{Answer, Bundle, Classifier, Labels};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::goldens::{Goldens, root};
use crate::program::{Bench, image_bytes};
use crate::toy::{renamed_as_openai, stored, toy_shape, toy_tensors};

const CLASSES: &str = "dog\nsea horse\nred_car\nÉCOLE\ncup\n";

/// A copy of the tiny model, to be broken.
struct Model {
    folder: PathBuf,
}

impl Model {
    fn new(bench: &Bench) -> Self {
        let folder = bench.path("model");
        copy(&root().join("tests/data/tiny-clip"), &folder);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    fn config(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.change(name, |bytes| {
            let mut value = serde_json::from_slice(bytes).unwrap();
            change(&mut value);
            *bytes = serde_json::to_vec(&value).unwrap();
        });
    }

    /// Rewrites the checkpoint with one tensor changed or, if `change` gives nothing, left out.
    fn tensor(&self, name: &str, change: impl Fn(&[usize], &[u8]) -> Option<(Dtype, Vec<usize>, Vec<u8>)>) {
        self.change("model.safetensors", |bytes| {
            let old = SafeTensors::deserialize(bytes).unwrap();
            let mut tensors = Vec::new();
            for (tensor, view) in old.tensors() {
                let unchanged = Some((view.dtype(), view.shape().to_vec(), view.data().to_vec()));
                let new = if tensor == name { change(view.shape(), view.data()) } else { unchanged };
                tensors.extend(new.map(|new| (tensor, new)));
            }
            let views = tensors
                .iter()
                .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
            *bytes = serialize(views, None).unwrap();
        });
    }

    /// Rewrites the checkpoint with one more tensor of zeros.
    fn add_tensor(&self, name: &str, shape: &[usize]) {
        let data = vec![0; 4 * shape.iter().product::<usize>()];
        let more = TensorView::new(Dtype::F32, shape.to_vec(), &data).unwrap();
        self.change("model.safetensors", |bytes| {
            let old = SafeTensors::deserialize(bytes).unwrap();
            let tensors = old.tensors().into_iter().chain([(name.to_string(), more.clone())]);
            *bytes = serialize(tensors, None).unwrap();
        });
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Imports the tiny model after `prepare`, asserts that it works, and gives the traced class embeddings, clean view
/// and its features.
fn traced(bench: &Bench, extra: &[&str], prepare: impl FnOnce(&Model)) -> (Array2<f64>, Vec<f64>, Array2<f64>) {
    let model = Model::new(bench);
    prepare(&model);
    let (labels, image) = (bench.write("labels.txt", CLASSES.as_bytes()), bench.image("rgb.png"));
    let mut arguments = vec!["bundle", "import", "model", "-o", "out"];
    arguments.extend(extra);
    let run = bench.rtpt(&arguments);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.contains("24×24 pixels to 8 numbers") && run.stdout.contains("2 layers of width 16"),
        "{}",
        run.stdout
    );
    assert_eq!(bench.rtpt(&["bundle", "check", "out"]).code, 0);
    let trace =
        ["trace", "--bundle", "out", "--labels", &labels, "--head", "context", "--views", "8", &image, "-o", "t"];
    let run = bench.rtpt(&trace);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let trace = Goldens::read(&bench.path("t"));
    let view = trace.flat("views")[..3 * 24 * 24].to_vec();
    (trace.matrix("classes"), view, trace.matrix("features"))
}

fn assert_agrees_with_pytorch((classes, view, features): (Array2<f64>, Vec<f64>, Array2<f64>), tolerance: f64) {
    let goldens = Goldens::open("tiny-clip.safetensors");
    let far = |a: &mut dyn Iterator<Item = &f64>, b: &[f64]| {
        let differences: Vec<f64> = a.zip(b).map(|(a, b)| (a - b).abs()).collect();
        assert_eq!(differences.len(), b.len());
        !differences.iter().all(|difference| *difference < tolerance)
    };
    assert!(!far(&mut classes.iter(), &goldens.flat("classes")), "{classes}");
    assert!(!far(&mut view.iter(), &goldens.flat("view")), "the clean view");
    assert!(!far(&mut features.row(0).iter(), &goldens.flat("features")), "{}", features.row(0));
}

#[test]
fn a_hugging_face_folder_becomes_a_bundle_that_agrees_with_pytorch() {
    assert_agrees_with_pytorch(traced(&Bench::new(), &[], |_| {}), 1e-5);
}

#[test]
fn the_projection_is_applied_where_the_vision_model_leaves_it_out() {
    let bench = Bench::new();
    let results = traced(&bench, &["--image-onnx", "model/onnx/vision_model_pooled.onnx"], |_| {});
    assert_agrees_with_pytorch(results, 1e-5);
    assert!(bench.path("out/image_projection.safetensors").is_file());
}

/// The answer of an open bundle whose labels go through its text tower; an error in words.
fn answer_through_the_tower(bundle: &Bundle) -> Result<Answer, String> {
    let labels = Labels::new(["anvil", "bobsled"]).unwrap();
    let classifier = Classifier::builder(bundle).labels(labels).views(2).threads(1).build();
    Ok(classifier.map_err(|error| error.to_string())?.classify(&image_bytes("rgb.png")).unwrap())
}

#[test]
fn files_that_take_the_towers_names_after_opening_are_not_used() {
    let bench = Bench::new();
    traced(&bench, &[], |_| {});
    let folder = bench.path("out");
    let expected = answer_through_the_tower(&Bundle::open(&folder).unwrap()).unwrap().digest();
    let bundle = Bundle::open(&folder).unwrap();
    for name in ["text_encoder.safetensors", "merges.txt"] {
        let other = folder.join("other");
        fs::write(&other, vec![b' '; fs::metadata(folder.join(name)).unwrap().len() as usize]).unwrap();
        fs::rename(&other, folder.join(name)).unwrap();
    }
    assert_eq!(answer_through_the_tower(&bundle).unwrap().digest(), expected);
    assert!(Bundle::open(&folder).is_err(), "the new files are other files");
}

#[test]
fn files_of_the_tower_that_are_changed_in_place_are_refused() {
    let bench = Bench::new();
    traced(&bench, &[], |_| {});
    let cut = |whole: &[u8]| whole[..whole.len() / 2].to_vec();
    let other = |whole: &[u8]| vec![b' '; whole.len()];
    let one_bit = |whole: &[u8]| [&whole[..whole.len() - 1], &[whole[whole.len() - 1] ^ 1]].concat();
    for name in ["merges.txt", "text_encoder.safetensors"] {
        for change in [&cut as &dyn Fn(&[u8]) -> Vec<u8>, &other, &one_bit] {
            let bundle = Bundle::open(bench.path("out")).unwrap();
            let path = bench.path("out").join(name);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, change(&whole)).unwrap();
            let message = answer_through_the_tower(&bundle).err().unwrap();
            assert!(message.contains(name) && message.contains("another program wrote into it"), "{message}");
            fs::write(&path, whole).unwrap();
        }
    }
}

#[test]
fn half_precision_checkpoints_are_kept_as_they_are() {
    let bench = Bench::new();
    let results = traced(&bench, &[], |model| {
        model.change("model.safetensors", |bytes| {
            let old = SafeTensors::deserialize(bytes).unwrap();
            let halves: Vec<(String, Vec<usize>, Vec<u8>)> = old
                .iter()
                .map(|(name, view)| {
                    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    let data = values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect();
                    (name.to_string(), view.shape().to_vec(), data)
                })
                .collect();
            let views = halves.iter().map(|(n, s, d)| (n, TensorView::new(Dtype::F16, s.clone(), d).unwrap()));
            *bytes = serialize(views, None).unwrap();
        });
    });
    assert_agrees_with_pytorch(results, 5e-3);
    assert!(fs::metadata(bench.path("out/text_encoder.safetensors")).unwrap().len() < 60_000);
}

/// Makes an OpenCLIP folder of the tiny model.
fn as_openclip(model: &Model) {
    let bytes = fs::read(model.path("model.safetensors")).unwrap();
    let old = SafeTensors::deserialize(&bytes).unwrap();
    let text = old.iter().filter(|(name, view)| name.starts_with("text_") && view.dtype() == Dtype::F32);
    let tensors: Vec<_> = text
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (name.to_string(), view.shape().to_vec(), values.collect())
        })
        .collect();
    let renamed = stored(&renamed_as_openai(&tensors, ""), Dtype::F32);
    fs::write(model.path("open_clip_model.safetensors"), renamed).unwrap();
    let config = json!({
        "model_cfg": {
            "embed_dim": 8, "quick_gelu": true,
            "vision_cfg": {"image_size": 24, "layers": 2, "width": 16, "patch_size": 8},
            "text_cfg": {"context_length": 40, "vocab_size": 600, "width": 16, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic", "resize_mode": "shortest",
        },
    });
    fs::write(model.path("open_clip_config.json"), config.to_string()).unwrap();
    for name in ["model.safetensors", "config.json", "preprocessor_config.json"] {
        fs::remove_file(model.path(name)).unwrap();
    }
}

#[test]
fn an_openclip_folder_is_imported_by_its_own_names() {
    let bench = Bench::new();
    let results = traced(&bench, &["--logit-scale", "20"], as_openclip);
    assert_agrees_with_pytorch(results, 1e-5);
}

#[test]
fn an_openclip_configuration_with_more_than_is_computed_is_refused() {
    for (section, field, value, part) in [
        ("text_cfg", "pool_type", json!("first"), "text_cfg.pool_type is first, expected argmax or last"),
        (
            "text_cfg",
            "pool_type",
            json!("last"),
            "text_cfg.pool_type is last, expected argmax, where the tower is causal",
        ),
        ("text_cfg", "proj_bias", json!(true), "projection is without one, expected with a bias by the configuration"),
        ("text_cfg", "act_kwargs", json!({"approximate": "sigmoid"}), "approximate is sigmoid, expected none, or tanh"),
        ("text_cfg", "act_kwargs", json!({"beta": 1}), "unknown field `beta`"),
        ("text_cfg", "norm_kwargs", json!({"elementwise_affine": false}), "unknown field `elementwise_affine`"),
        ("text_cfg", "mlp_ratio", json!(3.7362), "mlp.c_fc.weight is [64, 16], expected [59, 16]"),
        ("text_cfg", "tokenizer_kwargs", json!({"clean": "upper"}), "clean is upper, expected canonicalize, lower or"),
        ("text_cfg", "tokenizer_kwargs", json!({"strip_sep_token": true}), "unknown field `strip_sep_token`"),
        ("text_cfg", "rotary", json!(8), "text_cfg.rotary is 8, expected no such field"),
        ("model_cfg", "multimodal_cfg", json!({"layers": 1}), "model_cfg.multimodal_cfg is"),
        ("preprocess_cfg", "mode", json!("L"), "preprocess_cfg.mode is \"L\", expected RGB"),
        ("preprocess_cfg", "size", json!(20), "preprocess_cfg.size is 20, expected 24, the image_size"),
        ("preprocess_cfg", "size", json!([24, 20]), "preprocess_cfg.size is [24,20], expected 24"),
        ("preprocess_cfg", "resize_mode", json!("longest"), "resize_mode is longest, expected shortest or squash"),
        ("preprocess_cfg", "interpolation", json!("random"), "interpolation is random, expected bicubic or bilinear"),
        ("preprocess_cfg", "antialias", json!(false), "preprocess_cfg.antialias is false, expected no such field"),
    ] {
        assert_refused(&[part], |_, model| {
            as_openclip(model);
            model.config("open_clip_config.json", |config| {
                let section = match section {
                    "text_cfg" => &mut config["model_cfg"]["text_cfg"],
                    _ => &mut config[section],
                };
                section[field] = value;
            });
        });
    }
    // What changes nothing, or says what holds anyway.
    let bench = Bench::new();
    let results = traced(&bench, &["--logit-scale", "20"], |model| {
        as_openclip(model);
        model.config("open_clip_config.json", |config| {
            config["model_cfg"]["custom_text"] = true.into();
            for (field, value) in [
                ("no_causal_mask", json!(false)),
                ("act_kwargs", json!(null)),
                ("norm_kwargs", json!({})),
                ("mlp_ratio", json!(4.0)),
                ("pool_type", json!("argmax")),
                ("pad_id", json!(7)),
            ] {
                config["model_cfg"]["text_cfg"][field] = value;
            }
            for (field, value) in [("size", json!([24, 24])), ("fill_color", json!(0)), ("mode", json!("RGB"))] {
                config["preprocess_cfg"][field] = value;
            }
        });
    });
    assert_agrees_with_pytorch(results, 1e-5);
}

#[test]
fn labels_given_at_import_are_the_defaults() {
    let bench = Bench::new();
    Model::new(&bench);
    let (labels, image) = (bench.write("labels.txt", b"n1\tcup\nn2\tdog\n"), bench.image("rgb.png"));
    let import = ["bundle", "import", "model", "-o", "out", "--labels", &labels, "--name", "mine", "--license", "MIT"];
    let run = bench.rtpt(&import);
    assert!(run.stdout.ends_with("try: rtpt classify --bundle out PHOTO\n"), "{}{}", run.stdout, run.stderr);
    let run = bench.rtpt(&["classify", "--json", "--bundle", "out", &image]);
    let record = &run.records()[0];
    assert!(record["bundle"].as_str().unwrap().starts_with("mine@"));
    assert_eq!(record["id"], if record["label"] == "cup" { "n1" } else { "n2" });
    assert_eq!(record["top"][1]["id"], if record["label"] == "cup" { "n2" } else { "n1" });
    let again = bench.rtpt(&import);
    again.fails_with(1, &["out exists already"]);
}

#[test]
fn without_labels_of_its_own_a_bundle_asks_for_some() {
    let bench = Bench::new();
    Model::new(&bench);
    let image = bench.image("rgb.png");
    let run = bench.rtpt(&["bundle", "import", "model", "-o", "out"]);
    assert!(run.stdout.ends_with("try: rtpt classify --bundle out --labels FILE PHOTO\n"), "{}", run.stdout);
    bench.rtpt(&["classify", "--bundle", "out", &image]).fails_with(2, &["no labels of its own", "--labels FILE"]);
}

#[test]
fn weights_beside_the_vision_model_are_brought_in() {
    let bench = Bench::new();
    let results = traced(&bench, &[], |model| externalize(&model.path("onnx"), "weights.bin"));
    assert_agrees_with_pytorch(results, 1e-5);
}

/// Moves the largest weight of the vision model into a file of its own and has the model name it `location`.
fn externalize(folder: &Path, location: &str) {
    use prost::Message;
    use tract_onnx::pb::{ModelProto, StringStringEntryProto};
    let path = folder.join("vision_model.onnx");
    let mut model = ModelProto::decode(&fs::read(&path).unwrap()[..]).unwrap();
    let tensors = &mut model.graph.as_mut().unwrap().initializer;
    let tensor = tensors.iter_mut().max_by_key(|tensor| tensor.raw_data.len()).unwrap();
    let data = std::mem::take(&mut tensor.raw_data);
    fs::write(folder.join("weights.bin"), [&[7; 64][..], &data].concat()).unwrap();
    tensor.data_location = Some(1);
    tensor.external_data =
        [("location", location.to_string()), ("offset", "64".into()), ("length", data.len().to_string())]
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .into();
    fs::write(&path, model.encode_to_vec()).unwrap();
}

#[test]
fn an_onnx_pair_needs_no_text_tower() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    fs::create_dir_all(bench.path("pair")).unwrap();
    fs::copy(root().join("tests/data/tiny/image_encoder.onnx"), bench.path("pair/vision_model.onnx")).unwrap();
    fs::copy(root().join("tests/data/tiny/classes.safetensors"), bench.path("classes.safetensors")).unwrap();
    let import = ["bundle", "import", "pair", "--classes", "classes.safetensors", "--resolution", "16", "-o", "out"];
    bench.rtpt(&import).fails_with(3, &["the logit scale", "--logit-scale"]);
    let run = bench.rtpt(&[&import[..], &["--logit-scale", "20"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let answer = |bundle: &str| {
        let labels = bench.write("labels.txt", b"red\nwatch\numbrella\n");
        let settings = ["--views", "9", "--augment", "crop", "--head", "none"];
        let paths = ["--bundle", bundle, "--labels", &labels, &image];
        let run = bench.rtpt(&[&["classify", "--json"][..], &settings, &paths].concat());
        run.records()[0]["top"].clone()
    };
    assert_eq!(answer("out"), answer(root().join("tests/data/tiny").to_str().unwrap()));
    // The same embeddings as an npy file, which has no names.
    let table = Goldens::read(&bench.path("classes.safetensors"));
    let data: Vec<u8> = table.flat("embeddings").iter().flat_map(|&value| (value as f32).to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 8), }\n";
    let npy = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &data].concat();
    bench.write("classes.npy", &npy);
    bench.write("names.txt", b"red\nsea horse\nyin yang\nwatch\numbrella\n");
    let import = ["bundle", "import", "pair", "--classes", "classes.npy", "--logit-scale", "20", "-o", "npy"];
    bench.rtpt(&import).fails_with(3, &["the list of names", "--names"]);
    let run = bench.rtpt(&[&import[..], &["--names", "names.txt"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(answer("npy"), answer("out"));
    bench.write("names.txt", b"red\nsea horse\n");
    let import = ["bundle", "import", "pair", "--classes", "classes.npy", "--logit-scale", "20", "-o", "few"];
    bench
        .rtpt(&[&import[..], &["--names", "names.txt"]].concat())
        .fails_with(3, &["the number of rows is 5, expected 2"]);
    assert!(!bench.path("few").exists());
}

/// Breaks a copy of the tiny model and asserts that it is not imported and that nothing is left behind.
fn assert_refused(parts: &[&str], break_it: impl FnOnce(&Bench, &Model)) {
    let bench = Bench::new();
    let model = Model::new(&bench);
    break_it(&bench, &model);
    bench.rtpt(&["bundle", "import", "model", "-o", "made/out"]).fails_with(3, parts);
    let left = fs::read_dir(bench.path("made")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something was left behind");
}

#[test]
fn checkpoints_that_are_malformed() {
    const TOKENS: &str = "text_model.embeddings.token_embedding.weight";
    const FC1: &str = "text_model.encoder.layers.1.mlp.fc1.weight";
    assert_refused(&["model.safetensors", "the safetensors format, whole"], |_, model| {
        model.change("model.safetensors", |bytes| bytes.truncate(bytes.len() - 1));
    });
    assert_refused(&["the safetensors format"], |_, model| {
        model.change("model.safetensors", |bytes| bytes.truncate(5));
    });
    assert_refused(&[FC1, "is missing"], |_, model| model.tensor(FC1, |_, _| None));
    assert_refused(&["the type of", FC1, "is F64, expected F32, F16, BF16 or I8"], |_, model| {
        model.tensor(FC1, |shape, data| Some((Dtype::F64, shape.to_vec(), data.repeat(2))));
    });
    assert_refused(&["the shape of", FC1, "is [16, 64], expected [64, 16]"], |_, model| {
        model.tensor(FC1, |shape, data| Some((Dtype::F32, vec![shape[1], shape[0]], data.to_vec())));
    });
    for spoiled in [f32::NAN, f32::INFINITY] {
        for (name, place) in [(FC1, 77), (TOKENS, 333 * 16)] {
            assert_refused(&[&format!("value {place} of {name}"), "a finite number"], |_, model| {
                model.tensor(name, |shape, data| {
                    let mut data = data.to_vec();
                    data[4 * place..4 * place + 4].copy_from_slice(&spoiled.to_le_bytes());
                    Some((Dtype::F32, shape.to_vec(), data))
                });
            });
        }
    }
    assert_refused(&["the token embedding", "under none of these names"], |_, model| model.tensor(TOKENS, |_, _| None));
    assert_refused(&["the checkpoint is missing", "save it again as one"], |_, model| {
        fs::remove_file(model.path("model.safetensors")).unwrap();
    });
}

#[test]
fn towers_with_parts_of_another_kind() {
    for name in [
        "text_model.encoder.layers.1.layer_scale1.gamma",
        "text_model.embeddings.norm.weight",
        "text_model.head.weight",
    ] {
        assert_refused(&["the text tower's tensors", &format!("with {name}"), "does not compute"], |_, model| {
            model.add_tensor(name, &[8]);
        });
    }
}

#[test]
fn sizes_that_contradict_one_another() {
    assert_refused(&["the width is 16, expected 17 from the configuration"], |_, model| {
        model.config("config.json", |config| config["text_config"]["hidden_size"] = 17.into());
    });
    assert_refused(&["the layers is 2, expected 3"], |_, model| {
        model.config("config.json", |config| config["text_config"]["num_hidden_layers"] = 3.into());
    });
    assert_refused(&["heads that divide its width"], |_, model| {
        model.config("config.json", |config| config["text_config"]["num_attention_heads"] = 3.into());
    });
    // The text tower now projects to 9, the vision model still gives 8.
    assert_refused(&["the image encoder's output", "[1, 9] in f32"], |_, model| {
        model.config("config.json", |config| config["projection_dim"] = 9.into());
        model.tensor("text_projection.weight", |_, data| Some((Dtype::F32, vec![9, 16], [data, &data[..64]].concat())));
    });
    assert_refused(&["the image encoder's input", "24,24, expected [N, 3, 32, 32]"], |_, model| {
        model.config("preprocessor_config.json", |config| {
            config["crop_size"] = json!({"height": 32, "width": 32});
            config["size"] = json!({"shortest_edge": 32});
        });
    });
}

#[test]
fn configurations_of_other_models() {
    assert_refused(&["model_type is \"siglip2\", expected clip or siglip"], |_, model| {
        model.config("config.json", |config| config["model_type"] = "siglip2".into());
    });
    assert_refused(&["hidden_act is relu, expected quick_gelu, gelu or gelu_pytorch_tanh"], |_, model| {
        model.config("config.json", |config| config["text_config"]["hidden_act"] = "relu".into());
    });
    assert_refused(&["config.json", "the JSON of a CLIP model"], |_, model| {
        model.change("config.json", |bytes| bytes.truncate(20));
    });
    assert_refused(&["config.json or open_clip_config.json"], |_, model| {
        fs::remove_file(model.path("config.json")).unwrap();
    });
    for (field, value, part) in [
        ("resample", json!(1), "resample is 1, expected 2, bilinear, or 3, bicubic"),
        ("do_center_crop", json!(false), "do_center_crop is false"),
        ("rescale_factor", json!(0.5), "rescale_factor is 0.5, expected 1/255"),
        ("do_rescale", json!(false), "do_rescale is false, expected true"),
        ("crop_pct", json!(0.875), "crop_pct is 0.875, expected no such field"),
        (
            "image_processor_type",
            json!("ConvNextImageProcessor"),
            "expected CLIPFeatureExtractor or CLIPImageProcessor",
        ),
        ("size", json!({"height": 24, "width": 20}), "the height and width of a square"),
        ("size", json!({"shortest_edge": 28}), "a shortest edge equal to the side"),
        ("crop_size", json!({"height": 24, "width": 20}), "a shortest edge equal to the side"),
    ] {
        assert_refused(&[part], |_, model| {
            model.config("preprocessor_config.json", |config| config[field] = value);
        });
    }
}

#[test]
fn images_of_an_impossible_size_are_refused_before_they_are_made() {
    for side in [json!(1_u64 << 40), json!(0), json!(4)] {
        assert_refused(&["the side of its images (pixels) is", "expected 8 to 1024"], |_, model| {
            model.config("config.json", |config| config["vision_config"]["image_size"] = side.clone());
            fs::remove_file(model.path("preprocessor_config.json")).unwrap();
        });
    }
}

#[test]
fn tokenizers_that_do_not_fit() {
    assert_refused(&["the tokenizer is missing", "tokenizer.json, or vocab.json and merges.txt"], |_, model| {
        fs::remove_file(model.path("vocab.json")).unwrap();
    });
    assert_refused(&["merges.txt", "lists 85 merges, a vocabulary of 600 needs 86"], |_, model| {
        model.change("merges.txt", |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            *bytes = lines[..lines.len() - 1].join("\n").into_bytes();
        });
    });
    assert_refused(&["vocab.json", "\"a</w>\" number 7, the merges give it 320"], |_, model| {
        model.config("vocab.json", |vocab| vocab["a</w>"] = 7.into());
    });
    assert_refused(&["\"<|endoftext|>\" no number"], |_, model| {
        model.config("vocab.json", |vocab| drop(vocab.as_object_mut().unwrap().remove("<|endoftext|>")));
    });
    assert_refused(&["it has 601 tokens, the tower's token embedding 600 rows"], |_, model| {
        model.config("vocab.json", |vocab| vocab["more"] = 600.into());
    });
    assert_refused(&["has number 1023, the tower's token embedding has 600 rows"], |_, model| {
        fs::copy(root().join("models/demo/bundle/tokenizer.json"), model.path("tokenizer.json")).unwrap();
    });
}

#[test]
fn vision_models_that_do_not_fit() {
    assert_refused(&["the vision model is missing", "--image-onnx"], |_, model| {
        fs::remove_file(model.path("onnx/vision_model.onnx")).unwrap();
    });
    assert_refused(&["the image encoder cannot be parsed"], |_, model| {
        model.change("onnx/vision_model.onnx", |bytes| bytes.truncate(1000));
    });
    assert_refused(&["visual_projection.weight", "missing"], |_, model| {
        fs::rename(model.path("onnx/vision_model_pooled.onnx"), model.path("onnx/vision_model.onnx")).unwrap();
        model.tensor("visual_projection.weight", |_, _| None);
    });
    let bench = Bench::new();
    Model::new(&bench);
    bench.rtpt(&["bundle", "import", "nowhere", "-o", "out"]).fails_with(3, &["the source is missing"]);
    bench.rtpt(&["bundle", "import", "model/config.json", "-o", "out"]).fails_with(3, &["the source is a file"]);
}

#[test]
fn nothing_outside_the_folder_is_read() {
    for (location, part) in [
        ("../secret.bin", "without \"..\""),
        ("/etc/passwd", "without \"..\""),
        ("link.bin", "a symbolic link leads out of the folder"),
        ("missing.bin", "missing.bin"),
    ] {
        let bench = Bench::new();
        let model = Model::new(&bench);
        bench.write("model/secret.bin", &[0; 100_000]);
        let outside = bench.write("secret.bin", &[0; 100_000]);
        symlink(outside, model.path("onnx/link.bin")).unwrap();
        externalize(&model.path("onnx"), location);
        let run = bench.rtpt(&["bundle", "import", "model", "-o", "out"]);
        assert!(run.code != 0 && run.stderr.contains(part), "{location}: {}", run.stderr);
        assert!(!bench.path("out").exists());
    }
    for name in ["model.safetensors", "config.json", "merges.txt", "onnx/vision_model.onnx"] {
        assert_refused(&["a symbolic link leads out of the folder", "cp -rL"], |bench, model| {
            let outside = bench.path("outside");
            fs::rename(model.path(name), &outside).unwrap();
            symlink(outside, model.path(name)).unwrap();
        });
    }
}

#[test]
fn a_tower_that_overflows_is_not_imported() {
    // Finite weights, but no finite length.
    assert_refused(&["the text tower gives \"a photo of a dog.\" an embedding that is not finite"], |_, model| {
        model.tensor("text_projection.weight", |shape, data| {
            Some((Dtype::F32, shape.to_vec(), 3e38_f32.to_le_bytes().repeat(data.len() / 4)))
        });
    });
    assert_refused(&["an embedding that is not finite or has no direction"], |_, model| {
        model.tensor("text_projection.weight", |shape, data| Some((Dtype::F32, shape.to_vec(), vec![0; data.len()])));
    });
}

#[test]
fn a_tower_of_the_tests_has_the_shape_it_says() {
    // The helpers of this file and of the tower's tests agree on what a checkpoint is.
    let tensors = toy_tensors(toy_shape());
    assert_eq!(renamed_as_openai(&tensors, "").len(), tensors.len() - 4 * toy_shape().layers);
}
