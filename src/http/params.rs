//! Query parameters: known ones, each at most once, or the request is refused. Nothing is guessed and nothing is passed over.

use std::borrow::Cow;
use std::fmt::Display;

use super::reply::Rejection;
use crate::wire::path::unquote_parameter;

/// The parameters of one request, each read once.
pub struct Params<'q> {
    given: Vec<(&'static str, Cow<'q, str>)>,
}

impl<'q> Params<'q> {
    /// Reads a query string. Names that are not among the known ones, or given twice, are refused.
    pub fn parse(query: Option<&'q str>, known: &[&'static str]) -> Result<Self, Rejection> {
        Self::parse_repeated(query, known, &[])
    }

    /// The same, with names that may be given many times.
    pub fn parse_repeated(
        query: Option<&'q str>,
        once: &[&'static str],
        repeated: &[&'static str],
    ) -> Result<Self, Rejection> {
        let mut given: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let unreadable = |why| Rejection::malformed(format!("the parameter {name:?} cannot be read: {why}"));
            let name = unquote_parameter(name).map_err(unreadable)?;
            let Some(known) = once.iter().chain(repeated).find(|known| **known == name) else {
                return Err(Rejection::malformed(unknown(&name, &[once, repeated].concat())));
            };
            let value = unquote_parameter(value).map_err(unreadable)?;
            if !repeated.contains(known) && given.iter().any(|(earlier, _)| earlier == known) {
                return Err(Rejection::malformed(format!("the parameter {known:?} is given twice")));
            }
            given.push((known, value));
        }
        Ok(Self { given })
    }

    /// Takes one out, if it was given.
    pub fn take(&mut self, name: &'static str) -> Option<Cow<'q, str>> {
        let at = self.given.iter().position(|(given, _)| *given == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// Takes out all of a name that may be given many times, in their order.
    pub fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.given.extract_if(.., |(given, _)| *given == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// Takes one out and parses it.
    pub fn parsed<T, E: Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Rejection> {
        self.take(name)
            .map(|text| parse(&text).map_err(|why| Rejection::malformed(format!("{name}={text}: {why}"))))
            .transpose()
    }

    /// Takes out a whole number within bounds.
    pub fn number(&mut self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, Rejection> {
        self.parsed(name, |text| match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) && text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
            _ => Err(format!("it has to be a whole number from {least} to {most}")),
        })
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    format!("there is no parameter {name:?} here; there are: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_once_and_unquoted() {
        let mut params = Params::parse(Some("prefix=a%2Fb+c&limit=7&&"), &["limit", "prefix"]).ok().unwrap();
        assert_eq!(params.take("prefix").as_deref(), Some("a/b c"));
        assert_eq!(params.take("prefix"), None);
        assert_eq!(params.number("limit", 1, 7).ok().unwrap(), Some(7));
    }

    #[test]
    fn unknown_repeated_and_unreadable_ones_are_refused() {
        for query in ["x=1", "limit=1&limit=1", "limit=%zz", "%6Cimit=1&limit=2", "Limit=1"] {
            assert!(Params::parse(Some(query), &["limit"]).is_err(), "{query}");
        }
        for number in ["", "0", "8", "+1", "-1", "1.0", "99999999999999999999"] {
            let query = format!("limit={}", number.replace('+', "%2B"));
            let mut params = Params::parse(Some(&query), &["limit"]).ok().unwrap();
            assert!(params.number("limit", 1, 7).is_err(), "{query}");
        }
    }
}
