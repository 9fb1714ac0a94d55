//! The one error type of the library: what happened, where, and what to do next.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. `Display` gives one line that names the place (file and line, tensor, operation) and,
/// where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing a file failed.
    // Not called `source`: the line has it already, and what prints a chain of errors would repeat it.
    #[error("{}: cannot {action}: {cause}", .path.display())]
    Io { path: PathBuf, action: &'static str, cause: std::io::Error },

    /// One record of a line-oriented file is not what the format asks for.
    #[error("{}:{line}: {reason}", .path.display())]
    Record { path: PathBuf, line: usize, reason: String },

    /// A file as a whole is not what its format asks for.
    #[error("{}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },

    /// A named tensor in a file is missing or has another shape or type than needed.
    #[error("{}: tensor `{name}`: {reason}", .path.display())]
    Tensor { path: PathBuf, name: String, reason: String },

    /// Operands of an operation do not fit together. Points at a defect of the calling code.
    #[error("{op}: {reason}")]
    Shape { op: &'static str, reason: String },

    /// A tracked tensor went through an operation that has no backward.
    #[error("{op} has no backward, but gradients were asked to flow through it")]
    NoBackward { op: &'static str },

    /// A backward returned without saying anything about an input that needs a gradient.
    #[error("{op}: backward left input `{input}` without a gradient")]
    DroppedGradient { op: &'static str, input: &'static str },

    /// A device refused something; where it ran out of memory, less at a time may do.
    #[error("{device}: {doing}: {reason}")]
    Device { device: String, doing: String, reason: String, out_of_memory: bool },

    /// A signal asked the process to stop, and what it did is kept.
    #[error("stopped by {}: {advice}", if *.signal == signal_hook::consts::SIGINT { "SIGINT" } else { "SIGTERM" })]
    Stopped { signal: i32, advice: String },

    /// Another rank of a run, or the way to it, failed.
    #[error("{0}")]
    Rank(String),

    /// A setting, alone or against the data at hand, makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// An I/O error at `path` while doing `action` ("read", "create", ...).
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |cause| Error::Io { path, action, cause }
    }

    /// A file that is not what its format asks for.
    pub fn file(path: impl AsRef<Path>, reason: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// A tensor that is not what its reader asks for.
    pub fn tensor(path: impl AsRef<Path>, name: &str, reason: impl Into<String>) -> Error {
        Error::Tensor { path: path.as_ref().to_path_buf(), name: name.into(), reason: reason.into() }
    }

    /// Operands that do not fit together.
    pub fn shape(op: &'static str, reason: impl Into<String>) -> Error {
        Error::Shape { op, reason: reason.into() }
    }

    /// Something that a device refused.
    pub fn device(device: impl Into<String>, doing: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Device { device: device.into(), doing: doing.into(), reason: reason.into(), out_of_memory: false }
    }

    /// Memory that a device does not have.
    pub fn no_memory(device: impl Into<String>, doing: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Device { device: device.into(), doing: doing.into(), reason: reason.into(), out_of_memory: true }
    }

    /// Whether another input could do better. It could not where a device fails, or where the fault is this program's own:
    /// such an error ends a run even if bad input is to be skipped.
    pub fn concerns_input(&self) -> bool {
        match self {
            Error::Io { .. } | Error::Record { .. } | Error::File { .. } | Error::Tensor { .. } | Error::Invalid(_) => {
                true
            }
            Error::Shape { .. }
            | Error::NoBackward { .. }
            | Error::DroppedGradient { .. }
            | Error::Device { .. }
            | Error::Rank(_)
            | Error::Stopped { .. } => false,
        }
    }

    /// The same error with what to do at its end, where its words have no end of their own.
    pub fn advising(mut self, advice: &str) -> Error {
        if let Error::Record { reason, .. }
        | Error::File { reason, .. }
        | Error::Tensor { reason, .. }
        | Error::Shape { reason, .. }
        | Error::Device { reason, .. }
        | Error::Rank(reason)
        | Error::Invalid(reason) = &mut self
        {
            *reason = format!("{reason}; {advice}");
        }
        self
    }

    /// The same error, or, of a file that is not there, what to give instead.
    pub fn if_missing(self, advice: &str) -> Error {
        match self {
            Error::Io { path, action, cause }
                if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Error::File { path, reason: format!("cannot {action}: nothing is there; {advice}") }
            }
            other => other,
        }
    }

    /// The same error about a file, with what the file is to this program behind what is wrong with it.
    pub fn about_file(self, what: &str) -> Error {
        match self {
            Error::Io { path, action, cause } => {
                Error::File { path, reason: format!("cannot {action}: {cause}; {what}") }
            }
            Error::File { path, reason } => Error::File { path, reason: format!("{reason}; {what}") },
            other => other,
        }
    }

    /// What a model makes of features, such as "its scores are", is not finite. Features are known to be where they are read, and
    /// weights where they are kept: their products are too large.
    pub fn overflow(what: impl Display) -> Error {
        Error::invalid(format!(
            "{what} not finite, though the features are: the model's weights are too large, as a learning rate that is too high makes \
             them; train with a lower train.learning_rate (on a CUDA device, --arithmetic f32 holds larger values than the default)"
        ))
    }

    /// A setting that makes no sense.
    pub fn invalid(reason: impl Into<String>) -> Error {
        Error::Invalid(reason.into())
    }
}
