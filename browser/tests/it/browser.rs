//! A headless chromium, and the words in which the tests speak of the page.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::*;
use thirtyfour::{ChromiumLikeCapabilities, LoggingPrefsLogLevel};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::stack::{DEADLINE, Stack};

const POLL: Duration = Duration::from_millis(50);
/// The tallest picture, in CSS pixels.
const PICTURE_PX_MAX: u32 = 1_600;

/// One browser at a time: several would starve each other on a small machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// A page of a running stack in a browser of its own.
pub(crate) struct Browser {
    stack: Option<Stack>,
    pub(crate) driver: WebDriver,
    process: Option<u64>,
    _chromedriver: Child,
    _profile: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Browser {
    /// A test that fails leaves chromium behind, which knows nothing of its driver's end.
    fn drop(&mut self) {
        if let Some(process) = self.process {
            let _ = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
    }
}

impl Browser {
    /// Starts a stack and opens its page, at 1440 by 900.
    pub(crate) async fn open() -> Self {
        Self::alone().await.with(Stack::start().await).await
    }

    /// The same with a page of its own beside a stack, which kills nothing.
    pub(crate) async fn beside() -> Self {
        Self::alone().await.with(Stack::beside().await).await
    }

    async fn with(mut self, stack: Stack) -> Self {
        self.stack = Some(stack);
        self.load("").await;
        self
    }

    /// A browser without a page, in which files can be opened.
    pub(crate) async fn alone() -> Self {
        let turn = TURN.lock().await;
        let (chromedriver, url) = start_chromedriver().await;
        let profile = tempfile::TempDir::new().unwrap();
        let mut chromium = DesiredCapabilities::chrome();
        chromium.set_binary(&installed("CHROMIUM", &["chromium", "chromium-browser", "google-chrome"])).unwrap();
        chromium.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        for flag in ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", &folder] {
            chromium.add_arg(flag).unwrap();
        }
        // Chromium's own sandbox doesn't work for root, as which containers run.
        if PathBuf::from("/root").read_dir().is_ok() {
            chromium.add_arg("--no-sandbox").unwrap();
        }
        let driver = WebDriver::new(url, chromium).await.unwrap();
        let process = driver.capabilities().get("goog:processID").and_then(Value::as_u64);
        let browser =
            Self { stack: None, driver, process, _chromedriver: chromedriver, _profile: profile, _turn: turn };
        browser.size(1440, 900).await;
        browser.prefers("light").await;
        browser
    }

    pub(crate) fn stack(&mut self) -> &mut Stack {
        self.stack.as_mut().expect("the test has a stack")
    }

    /// Loads the page, with what comes after its address, and waits for the first state.
    pub(crate) async fn load(&self, rest: &str) {
        // Only another fragment would be no new page.
        self.driver.goto("about:blank").await.unwrap();
        let page = self.stack.as_ref().expect("the test has a stack").page();
        self.driver.goto(format!("{page}{rest}")).await.unwrap();
        self.wait("the parts are alive", "return document.querySelectorAll('.part[data-state=alive]').length === 6")
            .await;
    }

    /// Ends the browser. Fails if the page logged an error or broke its content security policy, except for the requests
    /// that the browser reports because of `expected`.
    pub(crate) async fn close(mut self, expected: &[&str]) {
        let logged = self.driver.browser_log().await.unwrap();
        let unexpected: Vec<String> = logged
            .into_iter()
            .filter(|entry| entry.level == "SEVERE" || entry.message.contains("Content Security Policy"))
            .filter(|entry| !expected.iter().any(|words| entry.message.contains(words)))
            .map(|entry| entry.message)
            .collect();
        assert!(unexpected.is_empty(), "the browser's console: {unexpected:#?}");
        self.driver.clone().quit().await.unwrap();
        self.process = None;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.driver.cdp().send_raw("Emulation.setDeviceMetricsOverride", metrics).await.unwrap();
    }

    /// What the system says about its colours: `light` or `dark`. It asks for little motion, too: drawing without a
    /// graphics card is expensive.
    pub(crate) async fn prefers(&self, scheme: &str) {
        self.media(scheme, "reduce").await;
    }

    /// Whether the system likes motion, in light colours.
    pub(crate) async fn moves(&self, likes: bool) {
        self.media("light", if likes { "no-preference" } else { "reduce" }).await;
    }

    async fn media(&self, scheme: &str, motion: &str) {
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ] });
        self.driver.cdp().send_raw("Emulation.setEmulatedMedia", media).await.unwrap();
    }

    /// Clicks as a hand would: what is covered or out of reach can't be clicked.
    pub(crate) async fn click(&self, selector: &str) {
        let ready = format!(
            "const element = document.querySelector({selector:?}); element?.scrollIntoView({{ block: 'center' }});
             return element !== null && element.getAttribute('aria-disabled') !== 'true'"
        );
        self.wait(&format!("{selector} can be clicked"), &ready).await;
        self.driver.find(By::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Puts other words into a field.
    pub(crate) async fn fill(&self, selector: &str, words: &str) {
        let element = self.driver.find(By::Css(selector)).await.unwrap();
        element.clear().await.unwrap();
        element.send_keys(words).await.unwrap();
    }

    /// Chooses an option by its value.
    pub(crate) async fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} option[value={value:?}]")).await;
    }

    pub(crate) async fn key(&self, key: Key) {
        self.driver.action_chain().send_keys(key).perform().await.unwrap();
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        self.driver.execute(script, vec![]).await.unwrap().json().clone()
    }

    /// The words of an element, empty if there is none.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.script(&format!("return document.querySelector({selector:?})?.textContent ?? ''")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until a script returns true.
    pub(crate) async fn wait(&self, what: &str, script: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.script(script).await != Value::Bool(true) {
            if Instant::now() > deadline {
                let page = self.script("return document.body.innerText.slice(0, 4000)").await;
                panic!("not in time: {what}\n{}", page.as_str().unwrap_or_default());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until an element's words contain others.
    pub(crate) async fn wait_for_text(&self, selector: &str, words: &str) {
        let script = format!("return (document.querySelector({selector:?})?.textContent ?? '').includes({words:?})");
        self.wait(&format!("`{words}` in {selector}"), &script).await;
    }

    /// From now on remembers what is read out to those who do not see the page: each announcement replaces the one before.
    pub(crate) async fn listen(&self) {
        let script = "const said = document.querySelector('#said'); window.heard = [];
            new MutationObserver(() => heard.push(said.textContent)).observe(said, { childList: true })";
        self.script(script).await;
    }

    /// Waits until these words have been read out.
    pub(crate) async fn wait_until_said(&self, words: &str) {
        let script = format!("return heard.some((words) => words.includes({words:?}))");
        self.wait(&format!("`{words}` is read out"), &script).await;
    }

    /// Waits until the card of a part shows a state: `alive`, `starting` or `dead`.
    pub(crate) async fn wait_for_part(&self, part: &str, state: &str) {
        let script = format!("return document.querySelector('.part[data-kind={part}]').dataset.state === {state:?}");
        self.wait(&format!("{part} is {state}"), &script).await;
    }

    /// Waits until the picture shows a depth of a queue that fits, written as a condition on `depth`.
    pub(crate) async fn wait_for_depth(&self, queue: &str, condition: &str) {
        let script = format!(
            "const words = document.querySelector('[data-queue=\"{queue}\"] .flow-depth').textContent;
             const depth = Number(words.replaceAll(',', '')); return {condition}"
        );
        self.wait(&format!("{queue}: {condition}"), &script).await;
    }

    /// Waits until the headline has a status.
    pub(crate) async fn wait_for_verdict(&self, status: &str) {
        let script = format!("return document.querySelector('#verdict').dataset.status === {status:?}");
        self.wait(&format!("the books are {status}"), &script).await;
    }

    /// Waits until orders flow steadily: so many are paid each second.
    pub(crate) async fn wait_for_flow(&self) {
        let script = "return Number(document.querySelector('#figure-paid').textContent) >= 5";
        self.wait("orders are paid", script).await;
    }

    /// Waits until the headline says that the books balance, and that this many orders were accepted.
    pub(crate) async fn wait_for_books(&self, accepted: Option<u32>) {
        let accepted = accepted.map_or_else(String::new, |count| count.to_string());
        let script = format!(
            "return document.querySelector('#verdict').dataset.status === 'balanced'
               && document.querySelector('#verdict-sum').textContent.startsWith({accepted:?})"
        );
        self.wait("the books balance", &script).await;
    }

    /// The same of a whole page, however long it is.
    pub(crate) async fn whole_picture(&self, name: &str) {
        let height = self.script("return document.documentElement.scrollHeight").await;
        self.size(1024, u32::try_from(height.as_u64().unwrap()).unwrap().min(PICTURE_PX_MAX)).await;
        self.picture(name).await;
    }

    /// Writes a picture for the README, if somebody wants one.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS").map(PathBuf::from) else { return };
        std::fs::create_dir_all(&folder).unwrap();
        self.script("scrollTo(0, 0); document.activeElement?.blur()").await;
        self.driver.screenshot(&folder.join(format!("{name}.png"))).await.unwrap();
    }
}

/// The driver on a port that it chose itself.
async fn start_chromedriver() -> (Child, String) {
    let mut command = Command::new(installed("CHROMEDRIVER", &["chromedriver"]));
    let mut child = command.arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return port.trim_end_matches('.').to_owned();
            }
        }
        panic!("chromedriver ended before it was ready");
    };
    let port = timeout(DEADLINE, started).await.expect("chromedriver is not ready in time");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, format!("http://127.0.0.1:{port}"))
}

/// A program that the system has to offer.
fn installed(variable: &str, names: &[&str]) -> String {
    if let Ok(path) = std::env::var(variable) {
        return path;
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let found =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file());
    let Some(path) = found else {
        panic!(
            "{} is not installed: apt-get install chromium chromium-driver, or let {variable} name it",
            names.join(" or ")
        )
    };
    path.display().to_string()
}
