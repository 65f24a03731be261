//! Names as path segments: quoted so that `/ % + ? #` and every letter of every script come through.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const QUOTED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a piece of a URL has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("a percent sign has to be followed by two hexadecimal digits")]
    Escape,
    #[error("it is not UTF-8")]
    Utf8,
}

/// Quotes a text for a path segment or a query parameter.
pub fn quote(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, &QUOTED)
}

/// The text of one path segment as it was sent.
pub fn unquote(segment: &str) -> Result<Cow<'_, str>, Unreadable> {
    if !segment.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(segment));
    }
    check_escapes(segment.as_bytes())?;
    percent_decode_str(segment).decode_utf8().map_err(|_| Unreadable::Utf8)
}

/// The text of a query parameter's name or value as it was sent: here a `+` is a space, as HTML forms and the URL libraries
/// of most languages write it.
pub fn unquote_parameter(text: &str) -> Result<Cow<'_, str>, Unreadable> {
    if !text.as_bytes().contains(&b'+') {
        return unquote(text);
    }
    let spaced = text.replace('+', " ");
    unquote(&spaced).map(|text| Cow::Owned(text.into_owned()))
}

/// The decoder would let a broken escape through as it stands, and then two URLs would name one key.
fn check_escapes(bytes: &[u8]) -> Result<(), Unreadable> {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = &rest[at + 3..],
            _ => return Err(Unreadable::Escape),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quoted_is_read_back() {
        for text in ["a/b", "50 % + 1?#", "\u{1F600}".repeat(128).as_str(), "..", "~a-b_c.d", ""] {
            let quoted = quote(text).to_string();
            assert!(quoted.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-._~".contains(&b)));
            assert_eq!(unquote(&quoted).as_deref(), Ok(text));
            assert_eq!(unquote_parameter(&quoted).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_plus_is_a_space_in_parameters_alone() {
        assert_eq!(unquote("a+b").as_deref(), Ok("a+b"));
        assert_eq!(unquote_parameter("a+b%2B").as_deref(), Ok("a b+"));
    }

    #[test]
    fn broken_escapes_and_broken_utf8_are_refused() {
        for broken in ["%", "a%2", "%zz", "%%41", "%+1"] {
            assert_eq!(unquote(broken), Err(Unreadable::Escape), "{broken}");
        }
        assert_eq!(unquote("%ff"), Err(Unreadable::Utf8));
        assert_eq!(unquote("%c3"), Err(Unreadable::Utf8));
    }
}
