//! Porcupine, built from a checkout of its source with Debian's Go, for tests and benches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A program that has porcupine judge log files.
pub struct Porcupine {
    program: PathBuf,
    _dir: tempfile::TempDir,
}

/// What it said of one file.
pub struct Judged {
    pub verdict: String,
    /// Of the search alone.
    pub took: Duration,
}

impl Porcupine {
    /// The error says what is missing.
    pub fn build() -> Result<Self, String> {
        let source = std::env::var_os("QUORATE_PORCUPINE")
            .ok_or("set QUORATE_PORCUPINE to a checkout of anishathalye/porcupine")?;
        let source = Path::new(&source).canonicalize().map_err(|why| format!("QUORATE_PORCUPINE: {why}"))?;
        if Command::new("go").arg("version").output().is_err() {
            return Err("there is no Go: apt-get install golang-go".to_owned());
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let module = format!(
            "module others\n\ngo 1.16\n\nrequire github.com/anishathalye/porcupine v0.0.0\n\
             replace github.com/anishathalye/porcupine => {}\n",
            source.display()
        );
        fs::write(dir.path().join("go.mod"), module).expect("a file in it");
        fs::write(dir.path().join("main.go"), include_str!("others/porcupine.go")).expect("a file in it");
        let program = dir.path().join("judge");
        // Nothing is fetched: the one module it needs is there.
        let built = Command::new("go")
            .args(["build", "-mod=mod", "-o"])
            .arg(&program)
            .current_dir(dir.path())
            .env("GOPROXY", "off")
            .env("GOCACHE", dir.path().join("cache"))
            .env("GOPATH", dir.path().join("path"))
            .output()
            .map_err(|why| format!("go does not run: {why}"))?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Ok(Self { program, _dir: dir })
    }

    /// Judges the files, one after the other.
    pub fn judge(&self, files: &[PathBuf]) -> Vec<Judged> {
        let run = Command::new(&self.program).args(files).output().expect("it was just built");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let told = String::from_utf8(run.stdout).expect("text");
        told.lines()
            .map(|line| {
                let [_, verdict, micros] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
                Judged { verdict: verdict.to_owned(), took: Duration::from_micros(micros.parse().expect("a number")) }
            })
            .collect()
    }
}
