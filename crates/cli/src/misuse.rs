//! Wrong use of the command line, told as error, cause and help.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::failure::{DONE, Failure, MISUSED};
use crate::output::Screen;
use crate::output::screen::ColorChoice;

/// Tells what is wrong with the arguments; help and version are results.
pub(crate) fn tell(error: &Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away has what it wanted.
        let _ = error.print();
        return ExitCode::from(DONE);
    }
    match failure(error) {
        Some(failure) => {
            let screen = Screen::new(ColorChoice::Auto, false, &synego_runtime::config::environment());
            screen.complain(&failure.render(screen.err));
        }
        None => {
            let _ = error.print();
        }
    }
    ExitCode::from(MISUSED)
}

fn failure(error: &Error) -> Option<Failure> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        ContextValue::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let argument = || text(ContextKind::InvalidArg).unwrap_or_default();
    let value = || text(ContextKind::InvalidValue).unwrap_or_default();
    let near = |kind, said: &str| {
        let words = text(kind)?;
        let nearest = synego_model::text::nearest(said, words.split(", "))?;
        Some(format!("nearest: `{nearest}`"))
    };
    let failure = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let said = text(ContextKind::InvalidSubcommand)?;
            Failure::misuse(format!("no command `{said}`"))
                .cause(near(ContextKind::SuggestedSubcommand, &said).unwrap_or_default())
                .help("`synego --help` lists all commands")
        }
        ErrorKind::UnknownArgument => Failure::misuse(format!("no flag or argument `{}` here", argument()))
            .cause(near(ContextKind::SuggestedArg, &argument()).unwrap_or_default()),
        ErrorKind::InvalidValue if value().is_empty() => Failure::misuse(format!("`{}` needs a value", argument()))
            .cause(text(ContextKind::ValidValue).map(|words| format!("expected one of {words}")).unwrap_or_default()),
        ErrorKind::InvalidValue => Failure::misuse(format!("`{}` is no value of `{}`", value(), argument()))
            .cause(text(ContextKind::ValidValue).map(|words| format!("expected one of {words}")).unwrap_or_default())
            .cause(near(ContextKind::SuggestedValue, &value()).unwrap_or_default()),
        ErrorKind::ValueValidation => Failure::misuse(format!("`{}` is no value of `{}`", value(), argument()))
            .cause(std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()),
        ErrorKind::MissingRequiredArgument => Failure::misuse(format!("{} is missing", argument())),
        ErrorKind::ArgumentConflict => Failure::misuse(format!(
            "`{}` cannot stand beside `{}`",
            argument(),
            text(ContextKind::PriorArg).unwrap_or_default()
        )),
        _ => return None,
    };
    let usage = text(ContextKind::Usage).map(|usage| usage.split_whitespace().collect::<Vec<_>>().join(" "));
    Some(match usage {
        Some(usage) if error.kind() != ErrorKind::InvalidSubcommand => {
            failure.help(usage.replace("Usage: ", "usage: "))
        }
        _ => failure,
    })
}
