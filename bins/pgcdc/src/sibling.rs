//! Which command lines belong to a sibling binary. Decided before clap looks at them, so that every
//! argument, `--help` included, reaches the sibling as it was given.

use std::ffi::OsString;
use std::process::ExitCode;

use cdc_runtime::{CommandKind, exec_sibling};

use crate::failure;

/// Commands of `pgcdc-serve`.
const READ_PLANE: [&str; 4] = ["serve", "query", "promote", "diff"];
/// The group of `pgcdc-acl`; the word itself is not passed on.
const GOVERNANCE: &str = "acl";
/// Flags before the command that take a value.
const FLAGS_WITH_VALUE: [&str; 3] = ["--config", "--log-level", "--log-format"];

/// A command line for a sibling.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    binary: &'static str,
    args: Vec<OsString>,
}

/// The sibling's command line that `args` (without the program's name) ask for, if any.
pub(crate) fn requested(args: &[OsString]) -> Option<Call> {
    let at = command_position(args)?;
    let word = args[at].to_str()?;
    if READ_PLANE.contains(&word) {
        return Some(Call { binary: "pgcdc-serve", args: args.to_vec() });
    }
    let without = |positions: &[usize]| {
        let kept = args.iter().enumerate().filter(|(at, _)| !positions.contains(at));
        kept.map(|(_, arg)| arg.clone()).collect()
    };
    if word == GOVERNANCE {
        return Some(Call { binary: "pgcdc-acl", args: without(&[at]) });
    }
    match args.get(at + 1).and_then(|next| next.to_str()) {
        Some(next) if word == "help" && READ_PLANE.contains(&next) => {
            Some(Call { binary: "pgcdc-serve", args: args.to_vec() })
        }
        Some(GOVERNANCE) if word == "help" => {
            Some(Call { binary: "pgcdc-acl", args: without(&[at + 1]) })
        }
        _ => None,
    }
}

/// Where the first word stands that is neither a common flag nor its value.
fn command_position(args: &[OsString]) -> Option<usize> {
    let mut at = 0;
    while let Some(text) = args.get(at).and_then(|arg| arg.to_str()) {
        if FLAGS_WITH_VALUE.contains(&text) {
            at += 2;
        } else if FLAGS_WITH_VALUE
            .iter()
            .any(|flag| text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
        {
            at += 1;
        } else {
            return (!text.starts_with('-')).then_some(at);
        }
    }
    None
}

/// Becomes the sibling; returns only when that failed, or with its exit code where a process
/// cannot become another.
pub(crate) fn run(call: &Call) -> ExitCode {
    exec_sibling(call.binary, &call.args)
        .unwrap_or_else(|error| failure::report(&error.into(), CommandKind::Operator).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Option<String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        requested(&args).map(|call| {
            let words: Vec<_> = call.args.iter().map(|arg| arg.to_string_lossy()).collect();
            format!("{} {}", call.binary, words.join(" "))
        })
    }

    #[test]
    fn commands_of_other_planes_go_to_their_sibling_with_all_arguments() {
        let cases = [
            ("query -t a --help", Some("pgcdc-serve query -t a --help")),
            ("--config x.yml serve --http", Some("pgcdc-serve --config x.yml serve --http")),
            ("--log-level=warn diff", Some("pgcdc-serve --log-level=warn diff")),
            ("acl set a --tag k=v", Some("pgcdc-acl set a --tag k=v")),
            ("--config x acl list", Some("pgcdc-acl --config x list")),
            ("help promote", Some("pgcdc-serve help promote")),
            ("help acl grant", Some("pgcdc-acl help grant")),
            ("help status", None),
            ("status", None),
            ("table add query", None),
            ("--config query status", None),
            ("--help", None),
            ("--config", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(call(line).as_deref(), expected, "{line}");
        }
    }
}
