//! The page in a real browser: headless Chromium, driven over WebDriver.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MouseActions, PointerAction};
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use serde_json::{Value, json};
use url::{ParseError, Url};

/// A browser with one page open. Browser and driver end with it, by their ids.
pub struct Browser {
    driver: Child,
    pub client: Client,
    browser: Option<i32>,
    _profile: tempfile::TempDir,
}

/// What Chromium's driver can do and WebDriver has no command for: where, and with what.
#[derive(Debug)]
struct Beyond(&'static str, Value);

impl WebDriverCompatibleCommand for Beyond {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}

impl Browser {
    /// None, said aloud: this machine has no Chromium or no driver for it.
    pub async fn open(page: &Path, arguments: &[&str]) -> Option<Browser> {
        let there =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
        for (program, package) in [("chromium", "chromium"), ("chromedriver", "chromium-driver")] {
            if !there(program) {
                crate::skipped(&format!("{program} is not installed: apt-get install {package}"));
                return None;
            }
        }
        let profile = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it was there a moment ago");
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
        let said = lines.find_map(|line| line.ok().filter(|line| line.contains("started successfully on port")));
        let said = said.expect("chromedriver tells its port");
        let port: u16 = said.trim_end_matches('.').rsplit(' ').next().and_then(|p| p.parse().ok()).expect("a port");
        // Read on, or the driver would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let profile_dir = format!("--user-data-dir={}", profile.path().display());
        let mut args = vec!["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        args.extend(["--no-first-run", "--disable-background-networking", "--window-size=1400,1000", &profile_dir]);
        args.extend(arguments);
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let wanted: Capabilities = wanted.as_object().cloned().expect("an object");
        let connected = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await;
        let client = match connected {
            Ok(client) => client,
            Err(why) => {
                let _ = driver.kill();
                let _ = driver.wait();
                panic!("no session: {why}");
            }
        };
        let browser = client.capabilities().and_then(|c| c.get("goog:processID")).and_then(Value::as_i64);
        let browser = Browser { driver, client, browser: browser.map(|id| id as i32), _profile: profile };
        browser.client.goto(&format!("file://{}", page.display())).await.expect("the page loads");
        Some(browser)
    }

    pub async fn eval(&self, script: &str) -> Value {
        self.client.execute(&format!("return ({script});"), Vec::new()).await.expect("the script runs")
    }

    /// Waits until it is true: what the page does, it does soon.
    pub async fn until(&self, script: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.eval(script).await != json!(true) {
            assert!(Instant::now() < deadline, "never true: {script}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn click(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.expect(css);
        element.click().await.expect(css);
    }

    pub async fn press(&self, keys: &[Key]) {
        let mut actions = KeyActions::new("keys".to_owned());
        for key in keys {
            let value = char::from(*key);
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.client.perform_actions(actions).await.expect("keys");
    }

    pub async fn hover(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.expect(css);
        self.eval(&format!("document.querySelector({}).scrollIntoView({{ block: 'center' }}), true", json!(css))).await;
        let to = PointerAction::MoveToElement { element, duration: None, x: 5.0, y: 0.0 };
        self.client.perform_actions(MouseActions::new("mouse".to_owned()).then(to)).await.expect("a move");
    }

    /// Lays the page out as it is printed.
    pub async fn as_printed(&self) {
        let print = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "media": "print" } });
        self.client.issue_cmd(Beyond("goog/cdp/execute", print)).await.expect("the driver knows it");
    }

    async fn log(&self, of: &'static str) -> Vec<Value> {
        let log = self.client.issue_cmd(Beyond("se/log", json!({ "type": of }))).await.expect("a log");
        log.as_array().cloned().expect("a list")
    }

    /// What the page complained of, and what it asked of anybody but the file that it is.
    pub async fn complaints(&self) -> Vec<String> {
        let mut found: Vec<String> = self.log("browser").await.iter().map(Value::to_string).collect();
        for entry in self.log("performance").await {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or("null")).expect("JSON");
            let message = &message["message"];
            if message["method"] == "Network.requestWillBeSent" {
                let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
                // The browser's own first page asks for much.
                let ours = message["params"]["documentURL"].as_str().is_some_and(|of| of.starts_with("file://"));
                if ours && !(url.starts_with("file://") && url.ends_with("/index.html")) {
                    found.push(format!("asks for {url}"));
                }
            }
        }
        found
    }

    pub async fn close(mut self) {
        let _ = self.client.clone().close().await;
        self.end();
    }

    fn end(&mut self) {
        let alive = |id: i32| Path::new(&format!("/proc/{id}/cmdline")).exists();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.browser.is_some_and(alive) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let left = self.browser.filter(|id| alive(*id)).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = left {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !matches!(self.driver.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}
