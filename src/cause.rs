//! Causes from below that this crate does not interpret.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// An error of another crate.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Result of a library's function, whose panic becomes an error: some do not withstand files that were made to break them.
///
/// # Errors
/// The message of the panic.
pub(crate) fn contained<R>(act: impl FnOnce() -> R) -> Result<R, Cause> {
    // Whatever `act` was in the middle of is dropped with it: callers use nothing of it afterwards.
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("for an unknown reason");
        format!("it panicked: {text}").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(contained(|| 7).unwrap(), 7);
        let number = std::hint::black_box(3);
        let error = contained(|| assert!(number < 2, "{number} is too much")).unwrap_err();
        assert_eq!(error.to_string(), "it panicked: 3 is too much");
        assert!(contained(|| panic!("plainly")).unwrap_err().to_string().ends_with("plainly"));
    }
}
