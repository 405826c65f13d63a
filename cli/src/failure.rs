//! Why a command did not do what it was asked, and with which code the program ends.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;

use ashlar_engine::types::{ByteRange, ByteSize};
use ashlar_openapi::Problem;
use ashlar_openapi::client::ClientError;
use ashlar_openapi::jobs::Job;
use ashlar_server::serve::ServeError;
use uuid::Uuid;

use crate::format::plain;

/// Stands in `--help`, the manual page and the guide.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    refused by the appliance, or there is no such object
  2    wrong usage, or a local file cannot be used
  3    the appliance cannot be reached, or is not the one that is trusted
  4    not signed in, or not allowed
  5    the appliance's own fault, or it is not available
  6    a job that was waited for has failed or was cancelled
  130  interrupted while waiting for a job, which goes on";

#[derive(Debug)]
pub(crate) enum Failure {
    Client(Box<ClientError>),
    /// What was asked makes no sense, before anything was sent.
    Usage(String),
    /// A local file.
    File {
        path: PathBuf,
        error: io::Error,
    },
    NoSuchObject(String),
    /// The answer to a question was no.
    Declined,
    JobEnded(Box<Job>),
    /// The wait for this job was interrupted.
    Interrupted(Uuid),
    /// The appliance did not start, or ended badly.
    Serve(Box<ServeError>),
    /// Standard output or input.
    Terminal(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn file(path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self::File {
            path: path.into(),
            error,
        }
    }

    /// Whoever reads the output has gone away: nothing to complain about.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Terminal(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Client(error) => code_of(error),
            Self::NoSuchObject(_) | Self::Declined => 1,
            Self::Serve(_) => 5,
            Self::JobEnded(_) => 6,
            Self::Interrupted(_) => 130,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Terminal(_) => {
                if self.is_broken_pipe() {
                    0
                } else {
                    2
                }
            }
        }
    }

    /// Says it on standard error. That nobody may read there is no further failure.
    pub(crate) fn print(&self) {
        if !self.is_broken_pipe() {
            let text = self.to_string();
            let mut out = io::stderr().lock();
            // What the appliance tells may hold what a terminal would obey.
            for (line, before) in text
                .lines()
                .zip(std::iter::once("ashlar: ").chain(std::iter::repeat("")))
            {
                let _ = writeln!(out, "{before}{}", plain(line));
            }
        }
    }
}

fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::Problem(problem) => match problem.status {
            401 | 403 | 429 => 4,
            // No space: a matter of what was asked.
            400..500 | 507 => 1,
            _ => 5,
        },
        ClientError::Connect { .. } | ClientError::Lost { .. } | ClientError::Tls { .. } => 3,
        ClientError::NotOurs { .. } => 5,
        ClientError::Session(_) => 4,
        ClientError::Setting(_) => 2,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => client(f, error),
            Self::Usage(text) | Self::NoSuchObject(text) => f.write_str(text),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Declined => f.write_str("nothing was done"),
            Self::Interrupted(id) => {
                write!(
                    f,
                    "the job goes on\n  `ashlar job wait {id}` follows it, `ashlar job cancel {id}` ends it"
                )
            }
            Self::Serve(error) => write!(f, "{error}"),
            Self::Terminal(error) => error.fmt(f),
            Self::JobEnded(job) => {
                write!(f, "the job {} is {}", job.id, job.state.as_str())?;
                job.failure
                    .as_ref()
                    .map_or(Ok(()), |cause| write!(f, "\n  {}", Told(cause)))
            }
        }
    }
}

fn client(f: &mut fmt::Formatter<'_>, error: &ClientError) -> fmt::Result {
    match error {
        ClientError::Problem(problem) => write!(f, "{}", Told(problem)),
        ClientError::Connect { .. } => write!(
            f,
            "{error}\n  Name the appliance with --url, --profile or --data; `ashlar serve` starts one"
        ),
        ClientError::Tls { .. } => write!(
            f,
            "{error}\n  `ashlar login URL` shows the certificate and remembers it; --ca and --fingerprint name one"
        ),
        ClientError::Session(error) if error.kind() == io::ErrorKind::NotFound => f.write_str(
            "not signed in\n  `ashlar login URL` signs in; --data names an appliance of this machine",
        ),
        other => write!(f, "{other}"),
    }
}

/// A problem, for people.
struct Told<'a>(&'a Problem);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            cause,
            correction,
            pointer,
            request_id,
            ..
        } = self.0;
        f.write_str(cause)?;
        if !correction.text.is_empty() {
            write!(f, "\n  {}", correction.text)?;
        }
        if !correction.allowed.is_empty() {
            write!(f, "\n  allowed: {}", correction.allowed.join(", "))?;
        }
        if let Some(range) = correction.nearest_range {
            let range = ByteRange::new(range.offset.0, range.length.0);
            range.map_or(Ok(()), |range| write!(f, "\n  nearest range: {range}"))?;
        }
        for lack in &correction.missing {
            let (missing, free) = (ByteSize(lack.missing_bytes.0), ByteSize(lack.free_bytes.0));
            write!(
                f,
                "\n  RAID group {} lacks {missing}, {free} are free",
                lack.raid_group
            )?;
        }
        if let Some(seconds) = correction.retry_after_s {
            write!(f, "\n  try again in {seconds} s")?;
        }
        if let Some(pointer) = pointer {
            write!(f, "\n  field: {pointer}")?;
        }
        if request_id.is_empty() {
            Ok(())
        } else {
            write!(f, "\n  request: {request_id}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_openapi::problem::MissingSpace;
    use ashlar_openapi::{Bytes, Natural, ProblemType, Range};

    #[test]
    fn a_problem_is_told_with_its_correction_and_where_it_is() {
        let mut problem = Problem::new(ProblemType::NotEnoughSpace, "There is no room", "Ask for less")
            .at("/capacity_bytes");
        problem.correction.nearest_range = Some(Range {
            offset: Bytes(0),
            length: Bytes(1 << 20),
        });
        problem.correction.missing = vec![MissingSpace {
            raid_group: "00000000-0000-4000-8000-0000000a0003".parse().unwrap(),
            missing_bytes: Bytes(5 << 30),
            free_bytes: Bytes(1 << 30),
            missing_logical_devices: Natural(1),
        }];
        problem.request_id = "r1".to_owned();
        let failure = Failure::from(ClientError::Problem(Box::new(problem)));
        assert_eq!(
            failure.to_string(),
            "There is no room\n  Ask for less\n  nearest range: 0+1MiB\n  RAID group \
             00000000-0000-4000-8000-0000000a0003 lacks 5GiB, 1GiB are free\n  field: /capacity_bytes\n  request: r1"
        );
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn every_problem_has_a_code_of_its_class() {
        for kind in ProblemType::ALL {
            let code = Failure::from(ClientError::Problem(Box::new(Problem::new(*kind, "", "")))).code();
            let wanted = match kind.status() {
                401 | 403 | 429 => 4,
                507 => 1,
                status if status >= 500 => 5,
                _ => 1,
            };
            assert_eq!(code, wanted, "{}", kind.uri());
        }
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure() {
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(),
            0
        );
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(),
            2
        );
    }
}
