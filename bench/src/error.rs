//! What can go wrong.

/// Why a measurement did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program that is measured is not installed.
    #[error("`{program}` is not installed ({hint})")]
    Missing { program: &'static str, hint: &'static str },
    /// A server did not come up.
    #[error("the server did not start: {0}")]
    Start(String),
    /// A server broke off, or answered what it should not.
    #[error("the server failed: {0}")]
    Server(String),
    /// The side has no such case.
    #[error("{0}")]
    NotApplicable(&'static str),
    /// It took too long.
    #[error("not done within {0} s")]
    TimeOut(u64),
    /// Files and processes.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

pub(crate) type Outcome<T = ()> = Result<T, Error>;

impl Error {
    /// What a client library says.
    pub(crate) fn server(error: impl std::fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Server(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl From<tonic::transport::Error> for Error {
    fn from(error: tonic::transport::Error) -> Self {
        Self::server(error)
    }
}
