//! The library side of `quorate check`: files in, verdicts out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::checker::{Budget, Verdict};
use super::formats::{self, FormatError, Model};

/// How long a file may take unless told otherwise.
pub const BUDGET_DEFAULT: Duration = Duration::from_secs(10);

/// How to check a file.
#[derive(Clone, Debug)]
pub struct Options {
    /// Overrides the model that the file tells.
    pub model: Option<Model>,
    /// Looks at the calls about this one name, group or key alone.
    pub key: Option<String>,
    /// How long the search may go on for one file; after it the verdict is `Unknown`.
    pub budget: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { model: None, key: None, budget: BUDGET_DEFAULT }
    }
}

/// Why a file got no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{}: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{}: {error}", file.display())]
    Malformed { file: PathBuf, error: FormatError },
    #[error("{}: no call is about {key:?}", file.display())]
    NoSuchKey { file: PathBuf, key: String },
}

/// A verdict in the words of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Linearizable,
    NotLinearizable,
    Unknown,
}

impl Word {
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Linearizable => Word::Linearizable,
            Verdict::NotLinearizable(_) => Word::NotLinearizable,
            Verdict::Unknown(_) => Word::Unknown,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Word::Linearizable, Word::NotLinearizable, Word::Unknown].into_iter().find(|word| word.to_string() == text)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Linearizable => "linearizable",
            Word::NotLinearizable => "not-linearizable",
            Word::Unknown => "unknown",
        })
    }
}

/// Checks the history in one file.
pub fn check_file(file: &Path, options: &Options) -> Result<Verdict, CheckError> {
    let text = read_text(file)?;
    let mut recorded =
        formats::read(&text, options.model).map_err(|error| CheckError::Malformed { file: file.to_owned(), error })?;
    if let Some(key) = &options.key {
        recorded.only(key);
        if recorded.history.is_empty() {
            return Err(CheckError::NoSuchKey { file: file.to_owned(), key: key.clone() });
        }
    }
    let deadline = Instant::now() + options.budget;
    Ok(recorded.check(&Budget::until(&|| Instant::now() >= deadline)))
}

/// A text that is not UTF-8 is malformed, not unreadable: the line can be told.
fn read_text(file: &Path) -> Result<String, CheckError> {
    let bytes = std::fs::read(file).map_err(|error| CheckError::Unreadable { file: file.to_owned(), error })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count();
        CheckError::Malformed { file: file.to_owned(), error: FormatError::new(line, "this is not UTF-8") }
    })
}

/// A file's verdict beside the one expected of it.
#[derive(Debug)]
pub struct Compared {
    /// As the list names it.
    pub file: String,
    pub expected: Word,
    pub found: Result<Verdict, CheckError>,
}

/// How many verdicts were right. `Unknown` is right only where it is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub right: usize,
    pub wrong: usize,
    pub unknown: usize,
    /// Files that could not be read.
    pub failed: usize,
}

impl Tally {
    pub fn count(&mut self, compared: &Compared) {
        match &compared.found {
            Err(_) => self.failed += 1,
            Ok(verdict) => match Word::of(verdict) {
                found if found == compared.expected => self.right += 1,
                Word::Unknown => self.unknown += 1,
                Word::Linearizable | Word::NotLinearizable => self.wrong += 1,
            },
        }
    }
}

/// A line of a list of expected verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub file: String,
    pub model: Option<Model>,
    pub verdict: Word,
}

/// Reads a list of expected verdicts: tab-separated, with a header that names the columns `name`, `expected` and perhaps `model`.
pub fn read_expected(list: &Path) -> Result<Vec<Expected>, CheckError> {
    let text = read_text(list)?;
    parse_expected(&text).map_err(|error| CheckError::Malformed { file: list.to_owned(), error })
}

fn parse_expected(text: &str) -> Result<Vec<Expected>, FormatError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or_else(|| FormatError::new(1, "the list is empty"))?;
    let columns: Vec<&str> = header.split('\t').map(str::trim).collect();
    let column = |names: &[&str]| columns.iter().position(|column| names.contains(column));
    let (Some(file), Some(verdict)) = (column(&["name", "file"]), column(&["expected", "verdict"])) else {
        return Err(FormatError::new(1, "the header names the columns, among them name and expected"));
    };
    let model = column(&["model"]);
    lines
        .map(|(index, line)| {
            let error = |message: String| FormatError::new(index + 1, message);
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let field =
                |at: usize| fields.get(at).copied().ok_or_else(|| error(format!("column {} is missing", at + 1)));
            let word = field(verdict)?;
            let model = match model.map(field).transpose()? {
                None | Some("" | "-") => None,
                Some(model) => Some(model.parse().map_err(error)?),
            };
            Ok(Expected {
                file: field(file)?.to_owned(),
                model,
                verdict: Word::parse(word).ok_or_else(|| error(format!("{word:?} is not a verdict")))?,
            })
        })
        .collect()
}

/// Checks one file of the list, which names it relative to `dir`. The list's model yields to one given in `options`.
pub fn compare(expected: &Expected, dir: &Path, options: &Options) -> Compared {
    let options = Options { model: options.model.or(expected.model), ..options.clone() };
    Compared {
        file: expected.file.clone(),
        expected: expected.verdict,
        found: check_file(&dir.join(&expected.file), &options),
    }
}
