//! A reader for EDN (extensible data notation, github.com/edn-format/edn), as far as histories need it: everything but the meaning
//! of tags. Texts are borrowed from the input where they can be.

use std::borrow::Cow;
use std::fmt;

/// One element.
#[derive(Clone, PartialEq)]
pub enum Edn<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// A number that is not an `i64`, as it was written.
    Number(&'a str),
    Text(Cow<'a, str>),
    Char(&'a str),
    /// Without the colon.
    Keyword(&'a str),
    Symbol(&'a str),
    /// A list or a vector.
    Sequence(Vec<Edn<'a>>),
    Set(Vec<Edn<'a>>),
    Map(Vec<(Edn<'a>, Edn<'a>)>),
    Tagged(&'a str, Box<Edn<'a>>),
}

/// What is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdnError {
    pub at: usize,
    pub message: String,
}

/// How deep elements may be nested: a file of a million brackets must not overflow the stack.
const DEPTH_MAX: usize = 100;

/// Reads element after element.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next element and the byte it begins at; none at the end.
    pub fn next_element(&mut self) -> Result<Option<(usize, Edn<'a>)>, EdnError> {
        self.skip_space()?;
        if self.at == self.text.len() {
            return Ok(None);
        }
        let at = self.at;
        Ok(Some((at, self.element(0)?)))
    }

    /// Steps into a list or vector if one comes next, so that its elements can be read one by one until [`close`](Self::close).
    pub fn open(&mut self) -> Result<bool, EdnError> {
        self.skip_space()?;
        let opens = matches!(self.peek(), Some(b'[' | b'('));
        if opens {
            self.at += 1;
        }
        Ok(opens)
    }

    /// Steps out if the list or vector ends here.
    pub fn close(&mut self) -> Result<bool, EdnError> {
        self.skip_space()?;
        let closes = matches!(self.peek(), Some(b']' | b')'));
        if closes {
            self.at += 1;
        }
        Ok(closes)
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// An error at the place reached.
    pub fn error(&self, message: impl Into<String>) -> EdnError {
        EdnError { at: self.at, message: message.into() }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space, commas, comments and discarded elements.
    fn skip_space(&mut self) -> Result<(), EdnError> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | 0x0c) => self.at += 1,
                Some(b';') => {
                    let rest = &self.text.as_bytes()[self.at..];
                    self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                }
                Some(b'#') if self.text[self.at..].starts_with("#_") => {
                    self.at += 2;
                    self.skip_space()?;
                    self.element(0)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn element(&mut self, depth: usize) -> Result<Edn<'a>, EdnError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("elements are nested more than {DEPTH_MAX} deep")));
        }
        match self.peek() {
            None => Err(self.error("the file ends in the middle of an element")),
            Some(b'[') => Ok(Edn::Sequence(self.until(b']', depth)?)),
            Some(b'(') => Ok(Edn::Sequence(self.until(b')', depth)?)),
            Some(b'{') => self.map(depth),
            Some(b'"') => self.string(),
            Some(b'#') => self.dispatch(depth),
            Some(b'\\') => {
                self.at += 1;
                Ok(Edn::Char(self.word(1)))
            }
            Some(b')' | b']' | b'}') => Err(self.error("a bracket is closed that was not opened")),
            Some(_) => self.atom(),
        }
    }

    fn until(&mut self, end: u8, depth: usize) -> Result<Vec<Edn<'a>>, EdnError> {
        let start = self.at;
        self.at += 1;
        let mut elements = Vec::new();
        loop {
            self.skip_space()?;
            match self.peek() {
                None => return Err(EdnError { at: start, message: "a bracket is opened and never closed".to_owned() }),
                Some(byte) if byte == end => {
                    self.at += 1;
                    return Ok(elements);
                }
                Some(_) => elements.push(self.element(depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Edn<'a>, EdnError> {
        let start = self.at;
        let elements = self.until(b'}', depth)?;
        if elements.len() % 2 != 0 {
            return Err(EdnError { at: start, message: "a map has a key without a value".to_owned() });
        }
        let mut entries = Vec::with_capacity(elements.len() / 2);
        let mut elements = elements.into_iter();
        while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
            entries.push((key, value));
        }
        Ok(Edn::Map(entries))
    }

    fn dispatch(&mut self, depth: usize) -> Result<Edn<'a>, EdnError> {
        self.at += 1;
        if self.peek() == Some(b'{') {
            return Ok(Edn::Set(self.until(b'}', depth)?));
        }
        let tag = self.word(0);
        if tag.is_empty() {
            return Err(self.error("a # stands before nothing"));
        }
        // ##Inf, ##NaN
        if let Some(symbolic) = tag.strip_prefix('#') {
            return Ok(Edn::Symbol(symbolic));
        }
        self.skip_space()?;
        Ok(Edn::Tagged(tag, Box::new(self.element(depth + 1)?)))
    }

    fn string(&mut self) -> Result<Edn<'a>, EdnError> {
        let start = self.at;
        self.at += 1;
        let from = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            match bytes.get(self.at) {
                None => return Err(EdnError { at: start, message: "a string is opened and never closed".to_owned() }),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    // What is escaped may be longer than a byte.
                    self.at += self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
                }
                Some(_) => self.at += 1,
            }
        }
        let raw = &self.text[from..self.at];
        self.at += 1;
        Ok(Edn::Text(if escaped { Cow::Owned(self.unescape(raw, start)?) } else { Cow::Borrowed(raw) }))
    }

    fn unescape(&self, raw: &str, at: usize) -> Result<String, EdnError> {
        let mut text = String::with_capacity(raw.len());
        let mut chars = raw.chars();
        while let Some(char) = chars.next() {
            if char != '\\' {
                text.push(char);
                continue;
            }
            let escaped = match chars.next() {
                Some('n') => Some('\n'),
                Some('t') => Some('\t'),
                Some('r') => Some('\r'),
                Some('b') => Some('\u{8}'),
                Some('f') => Some('\u{c}'),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
                }
                other @ Some('"' | '\\') => other,
                Some(_) | None => None,
            };
            text.push(escaped.ok_or_else(|| EdnError { at, message: "a string holds an unknown escape".to_owned() })?);
        }
        Ok(text)
    }

    /// The characters up to the next delimiter, at least `least` of them.
    fn word(&mut self, least: usize) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest
            .char_indices()
            .enumerate()
            .find(|&(count, (_, char))| {
                count >= least
                    && (char.is_whitespace() || matches!(char, ',' | '"' | ';' | '(' | ')' | '[' | ']' | '{' | '}'))
            })
            .map_or(rest.len(), |(_, (index, _))| index);
        self.at += end;
        &rest[..end]
    }

    fn atom(&mut self) -> Result<Edn<'a>, EdnError> {
        let start = self.at;
        let word = self.word(0);
        if let Some(keyword) = word.strip_prefix(':') {
            if keyword.is_empty() {
                return Err(EdnError { at: start, message: "a colon stands before nothing".to_owned() });
            }
            return Ok(Edn::Keyword(keyword));
        }
        let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
        if digits.starts_with(|first: char| first.is_ascii_digit()) {
            let number = word.strip_suffix('N').unwrap_or(word);
            return Ok(number.parse().map_or(Edn::Number(word), Edn::Int));
        }
        Ok(match word {
            "nil" => Edn::Nil,
            "true" => Edn::Bool(true),
            "false" => Edn::Bool(false),
            "" => return Err(EdnError { at: start, message: "a character that begins no element".to_owned() }),
            symbol => Edn::Symbol(symbol),
        })
    }
}

impl<'a> Edn<'a> {
    /// The value under a keyword, if this is a map that has it.
    pub fn get(&self, keyword: &str) -> Option<&Edn<'a>> {
        match self {
            Edn::Map(entries) => entries.iter().find(|(key, _)| *key == Edn::Keyword(keyword)).map(|(_, value)| value),
            _ => None,
        }
    }
}

impl fmt::Display for Edn<'_> {
    /// EDN again, in one spelling: equal elements have equal texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, open: &str, elements: &[Edn], close: &str) -> fmt::Result {
            f.write_str(open)?;
            for (index, element) in elements.iter().enumerate() {
                write!(f, "{}{element}", if index == 0 { "" } else { " " })?;
            }
            f.write_str(close)
        }
        match self {
            Edn::Nil => f.write_str("nil"),
            Edn::Bool(bool) => write!(f, "{bool}"),
            Edn::Int(number) => write!(f, "{number}"),
            Edn::Number(word) | Edn::Symbol(word) => f.write_str(word),
            Edn::Text(text) => write!(f, "{text:?}"),
            Edn::Char(word) => write!(f, "\\{word}"),
            Edn::Keyword(word) => write!(f, ":{word}"),
            Edn::Sequence(elements) => list(f, "[", elements, "]"),
            Edn::Set(elements) => list(f, "#{", elements, "}"),
            Edn::Map(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key} {value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Edn::Tagged(tag, element) => write!(f, "#{tag} {element}"),
        }
    }
}

impl fmt::Debug for Edn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
