//! The words of a row filter.

/// One word. Keywords are unquoted names; the parser knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, folded to lower case as PostgreSQL does.
    Name(String),
    /// A name in double quotes.
    Quoted(String),
    /// Digits, with sign and fraction.
    Number(String),
    /// `'…'` with quotes doubled.
    Text(String),
    /// An operator, bracket or comma.
    Symbol(&'static str),
}

/// Longer ones first.
const SYMBOLS: [&str; 10] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut rest = text.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (token, behind) = next(rest)?;
        found.push(token);
        rest = behind.trim_start();
    }
    Ok(found)
}

fn next(rest: &str) -> Result<(Token, &str), String> {
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return Ok((Token::Symbol(symbol), &rest[symbol.len()..]));
    }
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        '\'' => quoted(rest, '\'').map(|(text, behind)| (Token::Text(text), behind)),
        '"' => match quoted(rest, '"')? {
            (name, _) if name.is_empty() => Err("an empty name".to_owned()),
            (name, behind) => Ok((Token::Quoted(name), behind)),
        },
        c if c.is_ascii_digit() || c == '-' || c == '+' => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            Ok((Token::Name(rest[..end].to_lowercase()), &rest[end..]))
        }
        c => Err(format!("unexpected `{c}`")),
    }
}

fn number(rest: &str) -> Result<(Token, &str), String> {
    let digits = rest.trim_start_matches(['-', '+']);
    let sign = rest.len() - digits.len();
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let number = &rest[..sign + end];
    // what follows at once would be an exponent, a unit or a typing mistake
    let is_joined = digits[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let is_sound = sign <= 1
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits[..end].matches('.').count() <= 1
        && !number.ends_with('.')
        && !is_joined;
    if is_sound {
        Ok((Token::Number(number.to_owned()), &rest[sign + end..]))
    } else {
        Err(format!("`{number}` is not a number"))
    }
}

/// Text between quotes that are doubled inside it.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Ok((text, &rest[at + 1..]));
        }
    }
    Err("a quote that does not end".to_owned())
}
