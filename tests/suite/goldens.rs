//! Reads the golden files that `models/goldens.py` writes.

use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use rtpt_edge::internal::views::Pixels;
use safetensors::{Dtype, SafeTensors};

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One golden file.
pub struct Goldens(Vec<u8>);

impl Goldens {
    pub fn open(name: &str) -> Self {
        Self::read(&root().join("tests/golden").join(name))
    }

    pub fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(String::from).collect()
    }

    pub fn metadata(&self, key: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        header.metadata().as_ref().unwrap()[key].clone()
    }

    pub fn pixels(&self, name: &str) -> Pixels {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
        assert_eq!((view.dtype(), view.shape().len(), view.shape()[2]), (Dtype::U8, 3, 3), "{name}");
        Pixels::new(view.shape()[1], view.shape()[0], view.data().to_vec())
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.tensors().tensor(name).unwrap().data().to_vec()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    pub fn matrix(&self, name: &str) -> Array2<f64> {
        let shape = self.shape(name);
        Array2::from_shape_vec((shape[0], shape[1]), self.doubles(name)).unwrap()
    }

    pub fn vector(&self, name: &str) -> Array1<f64> {
        self.doubles(name).into()
    }

    pub fn indices(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64);
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
    }

    /// All values of a tensor, whatever its shape.
    pub fn flat(&self, name: &str) -> Vec<f64> {
        self.doubles(name)
    }

    pub fn doubles(&self, name: &str) -> Vec<f64> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
        match view.dtype() {
            Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            other => panic!("{name} is {other:?}"),
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
}
