//! The sixteen codes of a failure, and what each means over HTTP.

pub use synego_model::{Blame, Code, Reason, Retry};

const ALL: [(Code, &str, u16); 16] = [
    (Code::Cancelled, "cancelled", 499),
    (Code::Unknown, "unknown", 500),
    (Code::InvalidArgument, "invalid_argument", 400),
    (Code::DeadlineExceeded, "deadline_exceeded", 504),
    (Code::NotFound, "not_found", 404),
    (Code::AlreadyExists, "already_exists", 409),
    (Code::PermissionDenied, "permission_denied", 403),
    (Code::ResourceExhausted, "resource_exhausted", 429),
    (Code::FailedPrecondition, "failed_precondition", 400),
    (Code::Aborted, "aborted", 409),
    (Code::OutOfRange, "out_of_range", 400),
    (Code::Unimplemented, "unimplemented", 501),
    (Code::Internal, "internal", 500),
    (Code::Unavailable, "unavailable", 503),
    (Code::DataLoss, "data_loss", 500),
    (Code::Unauthenticated, "unauthenticated", 401),
];

/// The word of a code: `not_found`; `ok` for [`Code::Ok`].
#[must_use]
pub fn word(code: Code) -> &'static str {
    ALL.iter().find(|(known, ..)| *known == code).map_or("ok", |(_, word, _)| word)
}

/// The code of a word; `None` when there is none of that word, or it is `ok`.
#[must_use]
pub fn from_word(word: &str) -> Option<Code> {
    ALL.iter().find(|(_, known, _)| *known == word).map(|(code, ..)| *code)
}

/// HTTP status that a code leaves with, after the table of the Connect protocol; 200 for [`Code::Ok`].
#[must_use]
pub fn status(code: Code) -> u16 {
    ALL.iter().find(|(known, ..)| *known == code).map_or(200, |(.., status)| *status)
}

/// The code of an HTTP answer that names none; statuses below 400 are [`Code::Unknown`], since only failures are asked.
#[must_use]
pub fn from_status(status: u16) -> Code {
    match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        413 | 429 | 431 => Code::ResourceExhausted,
        416 => Code::OutOfRange,
        499 => Code::Cancelled,
        502 | 503 => Code::Unavailable,
        _ => match status / 100 {
            4 => Code::FailedPrecondition,
            5 => Code::Internal,
            _ => Code::Unknown,
        },
    }
}

/// The code of a gRPC number; numbers that gRPC does not know are [`Code::Unknown`].
#[must_use]
pub fn from_number(number: i32) -> Code {
    if number == 0 {
        return Code::Ok;
    }
    ALL.iter().find(|(code, ..)| *code as i32 == number).map_or(Code::Unknown, |(code, ..)| *code)
}

/// Whose fault a failure of this code is, seen from the program where it is made.
#[must_use]
pub fn blame(code: Code) -> Blame {
    match code {
        Code::Ok | Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss => {
            Blame::Local
        }
        _ => Blame::Caller,
    }
}

/// Whether repeating a call that failed with this code helps, when nothing more is known.
#[must_use]
pub fn retry(code: Code) -> Retry {
    match code {
        Code::ResourceExhausted | Code::Unavailable => Retry::Later,
        _ => Retry::Never,
    }
}
