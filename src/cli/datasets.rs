//! The flags of commands that read data sets.

use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::error::Result;
use crate::eval::dataset::{ClassNames, DataSet, DataSetOptions};
use crate::labels::{Labels, read_labels};
use clap::Args;

use super::settings::{LabelArguments, headings};

/// Most labels of a data set that are named.
const LABELS_SHOWN: usize = 8;

/// How labelled images are read.
#[derive(Args)]
pub(crate) struct DataSetArguments {
    /// File that maps the data set's classes to labels: lines of a class, a tab and a label
    #[arg(long, value_name = "FILE", help_heading = headings::DATA)]
    class_names: Option<PathBuf>,
    /// Folder that the paths in a data set's file are below [default: where the file is]
    #[arg(long, value_name = "DIR", help_heading = headings::DATA)]
    images: Option<PathBuf>,
    /// Part of a CoOp split file: train, val or test [default: test; train to calibrate]
    #[arg(long, value_name = "PART", help_heading = headings::DATA)]
    split: Option<String>,
}

impl DataSetArguments {
    /// Reads and checks a data set; `split` is the part of a CoOp split file if nothing was said.
    pub(crate) fn open(&self, path: &Path, split: &str) -> Result<DataSet> {
        let split = self.split.clone().unwrap_or_else(|| split.into());
        DataSet::open(path, &DataSetOptions { images: self.images.clone(), split })
    }

    /// Labels of the data set's classes.
    pub(crate) fn class_names(&self) -> Result<ClassNames> {
        self.class_names.as_deref().map_or_else(|| Ok(ClassNames::default()), ClassNames::read)
    }
}

impl LabelArguments {
    /// The labels for data sets: those asked for, else those of a CoOp split, else the bundle's if they fit, else the
    /// first set's own classes. A message says so where they are a data set's.
    pub(crate) fn list_for(&self, bundle: &Bundle, sets: &[&DataSet], renamed: &ClassNames) -> Result<Labels> {
        if let Some(path) = &self.labels {
            return Ok(read_labels(path)?);
        }
        match &bundle.labels {
            Some(list)
                // A CoOp split lists its own classes. Without a text tower the bundle's labels are all it can tell
                // apart: a class that is none of them has to be named as an error, not embedded.
                if sets[0].classes.is_none()
                    && (!bundle.manifest.has_text_tower() || sets.iter().all(|set| set.fits(list, renamed))) =>
            {
                Ok(list.clone())
            }
            _ => {
                let labels = sets[0].labels(renamed)?;
                eprintln!("rtpt: {}", origin_of(&labels, sets[0]));
                Ok(labels)
            }
        }
    }
}

/// Says that labels are a data set's own classes.
fn origin_of(labels: &Labels, set: &DataSet) -> String {
    let names = labels.names();
    let shown = names.iter().take(LABELS_SHOWN).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let more = if names.len() > LABELS_SHOWN { ", …" } else { "" };
    let whose = if set.path.is_dir() { "the names of the folders in" } else { "the classes of" };
    let count = names.len();
    format!("the {count} labels are {whose} {}: {shown}{more}; choose others with --labels FILE", set.path.display())
}
