//! Chromium, driven by its WebDriver.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A browser without a window.
pub struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    driver: Child,
    /// The driver ends if nobody listens to what it says.
    _says: BufReader<ChildStdout>,
}

/// A command that is Chromium's own.
#[derive(Debug)]
struct Own(&'static str, Value);

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.1.to_string()))
    }
}

/// Chromium and its driver, as the project's script finds or installs them.
fn programs() -> [String; 2] {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/browser.sh");
    let output = Command::new(script).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "there is no browser to look at pages with:\n{errors}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().rev().take(2).collect();
    [lines[1].to_string(), lines[0].to_string()]
}

impl Browser {
    pub fn start() -> Browser {
        let [chromium, chromedriver] = programs();
        let mut driver = Command::new(chromedriver).arg("--port=0").stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(driver.stdout.take().unwrap());
        let mut port = None;
        while port.is_none() {
            let mut line = String::new();
            assert!(says.read_line(&mut line).unwrap() > 0, "chromedriver ended before it said its port");
            port = line
                .trim()
                .rsplit_once("successfully on port ")
                .map(|(_, port)| port.trim_end_matches('.').to_string());
        }
        let options = json!({
            "binary": chromium,
            // No sandbox: tests may run as root, where Chromium has none. The pages are our own.
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
        });
        let wanted = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = format!("http://127.0.0.1:{}", port.unwrap());
        let client = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(wanted.as_object().unwrap().clone()).connect(&address).await.unwrap()
        });
        Browser { runtime, client: Some(client), driver, _says: says }
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// A command of Chrome's DevTools.
    fn devtools(&self, command: &str, parameters: Value) -> Value {
        let own = Own("goog/cdp/execute", json!({"cmd": command, "params": parameters}));
        self.runtime.block_on(self.client().issue_cmd(own)).unwrap()
    }

    /// Opens a file on a screen of this width, dark or light, and gives the time until that returns.
    pub fn open(&self, file: &Path, width: u32, dark: bool) -> Duration {
        let screen = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", screen);
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.devtools("Emulation.setEmulatedMedia", json!({"features": [scheme]}));
        let start = Instant::now();
        self.runtime.block_on(self.client().goto(url::Url::from_file_path(file).unwrap().as_str())).unwrap();
        start.elapsed()
    }

    /// What the body of a function gives.
    pub fn run(&self, script: &str) -> Value {
        self.runtime.block_on(self.client().execute(script, Vec::new())).unwrap()
    }

    /// What axe-core finds that is serious or critical: rule, and the first element.
    pub fn shuts_out(&self) -> Vec<Value> {
        self.run(&fs::read_to_string(crate::support::fixture("browser/axe.min.js")).unwrap());
        let script = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(found => \
                      done(found.violations.map(v => ({rule: v.id, impact: v.impact, at: v.nodes[0].html, \
                      why: v.nodes[0].failureSummary}))), error => done([{rule: 'axe failed', impact: 'critical', \
                      why: String(error)}]));";
        let found = self.runtime.block_on(self.client().execute_async(script, Vec::new())).unwrap();
        let bad = |found: &&Value| ["serious", "critical"].contains(&found["impact"].as_str().unwrap_or_default());
        found.as_array().unwrap().iter().filter(bad).cloned().collect()
    }

    /// What the console says since it was last asked.
    pub fn console(&self) -> Vec<Value> {
        let said = self.runtime.block_on(self.client().issue_cmd(Own("se/log", json!({"type": "browser"})))).unwrap();
        said.as_array().unwrap().clone()
    }

    /// Presses Tab or Enter.
    pub fn press(&self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let (number, text) = if key == "Tab" { (9, "") } else { (13, "\r") };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number, "text": text});
            self.devtools("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of the whole page.
    pub fn picture(&self, file: &Path) {
        let picture = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true, "format": "png"}));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// The page as it is printed, as PDF.
    pub fn printed(&self) -> Vec<u8> {
        let printed = self.devtools("Page.printToPDF", json!({"printBackground": true}));
        STANDARD.decode(printed["data"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, and the driver after it.
        if let Some(client) = self.client.take() {
            drop(self.runtime.block_on(client.close()));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
