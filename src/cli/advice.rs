//! Advice in the words of the command line: the flag or command that helps with an error of a layer below.

#[cfg(feature = "daemon")]
use super::client::ClientError;
use crate::bundle::BundleError;
use crate::encoder::EncoderError;
use crate::error::Error;
#[cfg(feature = "eval")]
use crate::eval::EvalError;
use crate::import::{ImportError, RESOLUTION};
#[cfg(feature = "daemon")]
use crate::lock::{InUse, Resource};
#[cfg(feature = "daemon")]
use crate::recording::RecordingError;
use crate::setting::SettingError;
use crate::text::TextError;
use crate::views::ImageError;

/// The message of an error, with the flag or command that helps, where there is one.
pub(super) fn advised(error: &Error) -> String {
    match advice(error) {
        Some(advice) => format!("{error}; {advice}"),
        None => match in_use(error) {
            Some(flag) => format!("{error} with {flag}"),
            None => error.to_string(),
        },
    }
}

fn advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::Bundle(error) => of_bundle(error),
        Error::Encoder(EncoderError::Run { .. } | EncoderError::NotFinite { .. } | EncoderError::Zero { .. })
        | Error::Text(TextError::NotFinite { .. }) => Some("run `rtpt bundle check`"),
        Error::Image(ImageError::Damaged { answerable: true, .. }) => {
            Some("or classify it all the same with --damaged answer")
        }
        Error::Setting(error) => of_setting(error),
        _ => of_program(error),
    }
}

fn of_bundle(error: &BundleError) -> Option<&'static str> {
    match error {
        BundleError::NotFound { .. } => Some("give one with --bundle DIR or RTPT_BUNDLE"),
        BundleError::NoLabels { .. } => Some("give them with --labels FILE, one per line"),
        BundleError::NoTextTower { .. } | BundleError::UnknownLabel { .. } => {
            Some("`rtpt bundle info --classes` lists them")
        }
        _ => None,
    }
}

/// Settings by the names they have in messages, and the flags that set them.
const FLAGS: [(&str, &str); 8] = [
    ("the prompt", "use --context, --template or another --method"),
    ("the length of the queue", "use --queue"),
    ("the context", "use --template for it"),
    ("the address to listen on", "name the file of a token with --token-file FILE, or use another --listen"),
    ("the daemon's folder", "name one with --state DIR"),
    ("the socket", "name one with --socket PATH"),
    ("the room for the recording (MiB)", "use --record-max-mb"),
    ("the folder of the recording", "use --record with another folder"),
];

fn of_setting(error: &SettingError) -> Option<&'static str> {
    // What stands in no row needs no advice: the command line's own settings are called by their flag.
    FLAGS.iter().find(|(what, _)| *what == error.what).map(|(_, advice)| *advice)
}

fn of_program(error: &Error) -> Option<&'static str> {
    // One layer after another: the type that is looked for follows from the function that takes it.
    if let Some(error) = error.of_program() {
        return of_import(error);
    }
    #[cfg(feature = "eval")]
    if let Some(error) = error.of_program() {
        return of_eval(error);
    }
    #[cfg(feature = "daemon")]
    {
        if let Some(error) = error.of_program() {
            return of_client(error);
        }
        if let Some(RecordingError::OtherBundle { .. }) = error.of_program() {
            return Some("name the right one with --bundle DIR");
        }
    }
    None
}

fn of_import(error: &ImportError) -> Option<&'static str> {
    match error {
        ImportError::NoLogitScale { .. } => Some("give it with --logit-scale"),
        ImportError::NoVisionModel { .. } => Some("or name it with --image-onnx"),
        ImportError::NoNames { .. } => Some("or give them with --names FILE"),
        ImportError::Value { what, .. } if what == RESOLUTION => Some("leave out --resolution"),
        ImportError::Value { .. } => None,
    }
}

#[cfg(feature = "eval")]
fn of_eval(error: &EvalError) -> Option<&'static str> {
    match error {
        EvalError::DataSet { unlabelled: true, .. } => {
            Some("add what is missing to the labels, or map it with --class-names FILE")
        }
        _ => None,
    }
}

#[cfg(feature = "daemon")]
fn of_client(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { .. } => Some("start one with `rtpt serve`, or name its socket with --socket"),
        ClientError::Silent { .. } => Some("look at its log, or restart it"),
        ClientError::Denied { .. } => Some("ask with sudo, or let the group video ask, with rtpt.socket"),
        ClientError::Refused { .. } => None,
    }
}

/// The flag that chooses another resource, where a daemon has this one: the message ends in the choice.
#[cfg(feature = "daemon")]
fn in_use(error: &Error) -> Option<&'static str> {
    let InUse { resource, .. } = error.of_program()?;
    match resource {
        Resource::Socket => Some("--socket PATH"),
        Resource::State => Some("--state DIR"),
        Resource::Recording => Some("--record DIR"),
        Resource::Slots => Some("--slots DIR, or leave --slots out to ask the daemon"),
    }
}

#[cfg(not(feature = "daemon"))]
fn in_use(_: &Error) -> Option<&'static str> {
    None
}
