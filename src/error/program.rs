//! The errors of the program's layers. The library knows no more of them than their class.

use std::error::Error as StandardError;
use std::fmt;

use super::{Class, Error};

/// An error of one layer of the program, such as the daemon's.
pub(crate) trait ProgramLayer: StandardError + Send + Sync + 'static {
    /// The category of the error, and its name for programs.
    fn class(&self) -> Class;
}

/// An error of the program `rtpt`; the library's own functions never return it.
#[derive(Debug)]
pub struct ProgramError(Box<dyn ProgramLayer>);

impl ProgramError {
    pub(super) fn class(&self) -> Class {
        self.0.class()
    }

    pub(super) fn downcast<E: ProgramLayer>(&self) -> Option<&E> {
        // `downcast_ref` is a method of `dyn Error` alone.
        let error: &(dyn StandardError + 'static) = &*self.0;
        error.downcast_ref()
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StandardError for ProgramError {
    fn source(&self) -> Option<&(dyn StandardError + 'static)> {
        // Not the inner error itself, whose message is this one's already.
        self.0.source()
    }
}

impl<E: ProgramLayer> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Program(ProgramError(Box::new(error)))
    }
}
