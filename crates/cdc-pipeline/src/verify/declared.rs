//! The source's text of a value as the declared form of its column keeps it. Most forms keep the text
//! as it is; the others say what they do to it, so that a declared loss is not taken for a fault.

use std::borrow::Cow;

use cdc_core::text::{ArrayItem, TextError, elements};
use cdc_core::{Column, PgType, PgTypeKind, StoredType, UnrepresentablePolicy, oid};

use super::{pg_float, pg_text};

/// What a column's declared form does to the text of its values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// Nothing.
    AsIs,
    /// Bytes that are not UTF-8 become NULL.
    Utf8,
    /// A decimal with this many digits in all and behind the point.
    Decimal { precision: u8, scale: u8, policy: UnrepresentablePolicy },
    /// A double.
    Double,
    /// A date with a substitute for what it cannot hold.
    Date(UnrepresentablePolicy),
    /// The same for a time.
    Time(UnrepresentablePolicy),
    /// The same for a timestamp; the text ends with the zone if there is one.
    Timestamp { policy: UnrepresentablePolicy, zone: &'static str },
    /// A list with this form of its elements.
    List { element: Box<Form>, delimiter: u8, policy: UnrepresentablePolicy },
}

/// The character between the elements of an array of this type (`pg_type.typdelim`).
pub(crate) fn array_delimiter(pg_type: &PgType) -> u8 {
    match &pg_type.undomained().kind {
        PgTypeKind::Array(element) if element.undomained().oid == oid::BOX => b';',
        _ => b',',
    }
}

impl Form {
    /// The form of a column under the configured policy.
    pub(crate) fn of(column: &Column, policy: UnrepresentablePolicy) -> Form {
        Form::for_type(&column.stored, &column.pg_type, policy)
    }

    /// Whether values may have changed on their way into the lake, as declared.
    pub(crate) fn is_lossy(&self) -> bool {
        match self {
            Form::AsIs => false,
            Form::Decimal { policy, .. } => *policy != UnrepresentablePolicy::Error,
            Form::List { element, policy, .. } => {
                element.is_lossy() || *policy != UnrepresentablePolicy::Error
            }
            _ => true,
        }
    }

    fn for_type(stored: &StoredType, pg_type: &PgType, policy: UnrepresentablePolicy) -> Form {
        let base = pg_type.undomained();
        let is_strict = policy == UnrepresentablePolicy::Error;
        match stored {
            StoredType::Decimal { precision, scale }
                if !is_strict || !prints_scale(base, *scale) =>
            {
                Form::Decimal { precision: *precision, scale: *scale, policy }
            }
            StoredType::Float64 if base.oid != oid::FLOAT8 => Form::Double,
            StoredType::List(element) => {
                let item = match &base.kind {
                    PgTypeKind::Array(item) => item.as_ref(),
                    _ => base,
                };
                let element = Form::for_type(element, item, policy);
                if is_strict && element == Form::AsIs {
                    return Form::AsIs;
                }
                let delimiter = array_delimiter(pg_type);
                Form::List { element: Box::new(element), delimiter, policy }
            }
            _ if is_strict => Form::AsIs,
            StoredType::Date => Form::Date(policy),
            StoredType::Time => Form::Time(policy),
            StoredType::Timestamp => Form::Timestamp { policy, zone: "" },
            StoredType::TimestampTz => Form::Timestamp { policy, zone: "+00" },
            StoredType::String if policy == UnrepresentablePolicy::Null => Form::Utf8,
            _ => Form::AsIs,
        }
    }

    /// Appends the text that the lake should give back, or nothing and `false` for NULL.
    pub(crate) fn write(&self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let kept: Option<Cow<'_, [u8]>> = match self {
            Form::AsIs => Some(text.into()),
            Form::Utf8 => std::str::from_utf8(text).is_ok().then(|| text.into()),
            Form::Decimal { precision, scale, policy } => {
                match rescaled(text, *precision, *scale) {
                    Some(scaled) => Some(scaled.into()),
                    None => substitute(text, *policy, None),
                }
            }
            Form::Double => {
                match String::from_utf8_lossy(&without_money_marks(text)).parse::<f64>() {
                    Ok(value) => pg_float::write_float8(value, out),
                    // not a number: whatever the lake holds, it differs
                    Err(_) => out.extend_from_slice(text),
                }
                return true;
            }
            Form::Date(policy) => match bound(text, i64::MAX) {
                Some(Bound::Below) => substitute(text, *policy, Some("0001-01-01")),
                Some(Bound::Above) => substitute(text, *policy, Some("9999-12-31")),
                None => Some(text.into()),
            },
            Form::Time(policy) if text == b"24:00:00" => {
                substitute(text, *policy, Some("23:59:59.999999"))
            }
            Form::Time(_) => Some(text.into()),
            Form::Timestamp { policy, zone } => {
                // microseconds since 1970 in 64 bits end on 294247-01-10 at 04:00:54.775807
                let kept = match bound(text, 294_247) {
                    Some(Bound::Below) => "0001-01-01 00:00:00",
                    Some(Bound::Above) => "9999-12-31 23:59:59.999999",
                    None => return copy(text, out),
                };
                let kept = format!("{kept}{zone}");
                return match substitute(text, *policy, Some(&kept)) {
                    Some(kept) => copy(&kept, out),
                    None => false,
                };
            }
            Form::List { element, delimiter, policy } => {
                return write_list(text, element, *delimiter, *policy, out);
            }
        };
        kept.is_some_and(|kept| copy(&kept, out))
    }
}

fn copy(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(text);
    true
}

/// What a policy puts in the place of a value; `None` is NULL. Where the policy knows no substitute
/// the value would have been refused, so the text stays and shows as a difference.
fn substitute<'a>(
    text: &'a [u8],
    policy: UnrepresentablePolicy,
    nearest: Option<&'a str>,
) -> Option<Cow<'a, [u8]>> {
    match (policy, nearest) {
        (UnrepresentablePolicy::Null, _) => None,
        (UnrepresentablePolicy::Clamp, Some(nearest)) => Some(nearest.as_bytes().into()),
        (UnrepresentablePolicy::Clamp | UnrepresentablePolicy::Error, _) => Some(text.into()),
    }
}

/// Whether PostgreSQL prints values of this type with exactly `scale` digits behind the point.
fn prints_scale(base: &PgType, scale: u8) -> bool {
    match base.oid {
        oid::NUMERIC => base
            .numeric_precision_scale()
            .is_some_and(|(_, declared)| declared.max(0) == i16::from(scale)),
        oid::XID8 | oid::INT2 | oid::INT4 | oid::INT8 => scale == 0,
        _ => false,
    }
}

/// `-$1,234.50` as `-1234.50`.
fn without_money_marks(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !matches!(byte, b'$' | b',')).collect()
}

/// The number with exactly `scale` digits behind the point, if it has no more and fits.
fn rescaled(text: &[u8], precision: u8, scale: u8) -> Option<Vec<u8>> {
    let text = without_money_marks(text);
    let (sign, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (&b"-"[..], rest),
        None => (&b""[..], text.as_slice()),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    let all_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let scale = usize::from(scale);
    let excess = fraction.get(scale..).unwrap_or_default();
    let significant = whole.iter().skip_while(|byte| **byte == b'0').count();
    let fits = significant + scale <= usize::from(precision);
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || !fits {
        return None;
    }
    if excess.iter().any(|byte| *byte != b'0') {
        return None;
    }
    let mut out = [sign, whole].concat();
    if scale > 0 {
        out.push(b'.');
        let kept = &fraction[..fraction.len().min(scale)];
        out.extend_from_slice(kept);
        out.extend(std::iter::repeat_n(b'0', scale - kept.len()));
    }
    let is_zero = out.iter().all(|byte| matches!(byte, b'-' | b'0' | b'.'));
    // a decimal has no negative zero
    if is_zero && out.first() == Some(&b'-') {
        out.remove(0);
    }
    Some(out)
}

enum Bound {
    Below,
    Above,
}

/// Whether a date or timestamp is an infinity, or beyond the last instant of `last_year`.
fn bound(text: &[u8], last_year: i64) -> Option<Bound> {
    const LAST_INSTANT: &[u8] = b"01-10 04:00:54.775807";
    match text {
        b"infinity" => return Some(Bound::Above),
        b"-infinity" => return Some(Bound::Below),
        _ => {}
    }
    if text.ends_with(b" BC") {
        return None;
    }
    let text = text.strip_suffix(b"+00").unwrap_or(text);
    let end = text.iter().position(|byte| *byte == b'-')?;
    let year: i64 = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    let is_beyond = year > last_year || (year == last_year && &text[end + 1..] > LAST_INSTANT);
    is_beyond.then_some(Bound::Above)
}

fn write_list(
    text: &[u8],
    element: &Form,
    delimiter: u8,
    policy: UnrepresentablePolicy,
    out: &mut Vec<u8>,
) -> bool {
    let mut items: Vec<Option<Vec<u8>>> = Vec::new();
    let visited = elements(text, delimiter, |item| {
        items.push(match item {
            ArrayItem::Null => None,
            ArrayItem::Text(item) => {
                let mut kept = Vec::new();
                element.write(&item, &mut kept).then_some(kept)
            }
        });
        Ok::<(), TextError>(())
    });
    match visited {
        Ok(()) => {
            let write = |item: Option<Vec<u8>>, out: &mut Vec<u8>| {
                item.is_some_and(|item| copy(&item, out))
            };
            pg_text::write_array(delimiter, items.into_iter(), write, out);
            true
        }
        // several dimensions, or a lower bound other than 1
        Err(_) => substitute(text, policy, None).is_some_and(|kept| copy(&kept, out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UnrepresentablePolicy::{Clamp, Error, Null};

    fn kept(form: &Form, text: &str) -> Option<String> {
        let mut out = Vec::new();
        form.write(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn decimals_get_their_scale_or_the_policy() {
        let decimal = |policy| Form::Decimal { precision: 6, scale: 2, policy };
        let cases = [
            ("1.5", Some("1.50")),
            ("-$1,234.50", Some("-1234.50")),
            ("7", Some("7.00")),
            ("0.100", Some("0.10")),
            ("-0.00", Some("0.00")),
            ("1.234", None),
            ("12345", None),
            ("NaN", None),
            ("-Infinity", None),
        ];
        for (text, expected) in cases {
            assert_eq!(kept(&decimal(Null), text).as_deref(), expected, "{text}");
        }
        assert_eq!(kept(&decimal(Error), "NaN").as_deref(), Some("NaN"));
    }

    #[test]
    fn times_follow_their_policy() {
        let stamp = |policy| Form::Timestamp { policy, zone: "+00" };
        let clamped = "9999-12-31 23:59:59.999999+00";
        assert_eq!(kept(&stamp(Clamp), "infinity").as_deref(), Some(clamped));
        assert_eq!(kept(&stamp(Clamp), "294276-01-01 00:00:00+00").as_deref(), Some(clamped));
        let last = "294247-01-10 04:00:54.775807+00";
        assert_eq!(kept(&stamp(Null), last).as_deref(), Some(last));
        assert_eq!(kept(&stamp(Null), "294247-01-10 04:00:54.775808+00"), None);
        assert_eq!(
            kept(&stamp(Null), "4713-01-01 00:00:00+00 BC").as_deref().map(str::len),
            Some(25)
        );
        assert_eq!(kept(&Form::Date(Clamp), "-infinity").as_deref(), Some("0001-01-01"));
        assert_eq!(kept(&Form::Date(Clamp), "5874897-12-31").as_deref(), Some("5874897-12-31"));
        assert_eq!(kept(&Form::Time(Clamp), "24:00:00").as_deref(), Some("23:59:59.999999"));
        assert_eq!(kept(&Form::Time(Null), "24:00:00"), None);
    }

    #[test]
    fn lists_change_their_elements_only() {
        let element = Box::new(Form::Decimal { precision: 5, scale: 1, policy: Null });
        let list = Form::List { element, delimiter: b',', policy: Null };
        assert_eq!(kept(&list, "{1,NULL,NaN,2.50}").as_deref(), Some("{1.0,NULL,NULL,2.5}"));
        assert_eq!(kept(&list, "{}").as_deref(), Some("{}"));
        assert_eq!(kept(&list, "{{1,2},{3,4}}"), None);
        assert_eq!(kept(&list, "[0:1]={1,2}"), None);
    }

    #[test]
    fn only_forms_that_change_something_touch_the_text() {
        let pg = |oid, typmod| PgType { typmod, ..PgType::base(oid, "x") };
        let numeric =
            |precision: i32, scale: i32| pg(oid::NUMERIC, ((precision << 16) | scale) + 4);
        let of =
            |stored: StoredType, pg_type: &PgType, policy| Form::for_type(&stored, pg_type, policy);
        let decimal = || StoredType::Decimal { precision: 10, scale: 2 };
        assert_eq!(of(decimal(), &numeric(10, 2), Error), Form::AsIs);
        assert!(matches!(of(decimal(), &pg(oid::NUMERIC, -1), Error), Form::Decimal { .. }));
        assert!(matches!(of(decimal(), &pg(oid::MONEY, -1), Error), Form::Decimal { .. }));
        assert_eq!(of(StoredType::Float64, &pg(oid::FLOAT8, -1), Null), Form::AsIs);
        assert_eq!(of(StoredType::Float64, &pg(oid::NUMERIC, -1), Error), Form::Double);
        assert_eq!(of(StoredType::Date, &pg(oid::DATE, -1), Error), Form::AsIs);
        assert!(of(StoredType::Date, &pg(oid::DATE, -1), Null).is_lossy());
    }
}
