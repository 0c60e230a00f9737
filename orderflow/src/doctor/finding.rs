//! What the doctor has to say.

use std::fmt::{Display, Write};

use serde::Serialize;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub about: String,
    /// What was found.
    pub says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All findings, in the order in which things were looked at.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Finding {
    pub(super) fn ok(about: impl Display, says: impl Display) -> Self {
        Self { level: Level::Ok, about: about.to_string(), says: says.to_string(), remedy: None }
    }

    pub(super) fn warning(about: impl Display, says: impl Display, remedy: impl Display) -> Self {
        Self { level: Level::Warning, remedy: Some(remedy.to_string()), ..Self::ok(about, says) }
    }

    pub(super) fn problem(about: impl Display, says: impl Display, remedy: impl Display) -> Self {
        Self { level: Level::Problem, ..Self::warning(about, says, remedy) }
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Diagnosis {
    /// Whether nothing stands in the way of the stack.
    pub fn is_healthy(&self) -> bool {
        self.count(Level::Problem) == 0
    }

    /// One line for each finding, and a last one with the verdict.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for Finding { level, about, says, remedy } in &self.findings {
            let remedy = remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default();
            let _ = writeln!(text, "{:<9}{about}: {}{}", level.name(), one_line(says), one_line(&remedy));
        }
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        let _ = match (problems, warnings) {
            (0, 0) => write!(text, "\nnothing is wrong"),
            _ => write!(text, "\n{problems} problem(s), {warnings} warning(s)"),
        };
        text
    }

    /// Everything, for scripts.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "healthy": self.is_healthy(),
            "problems": self.count(Level::Problem),
            "warnings": self.count(Level::Warning),
            "findings": self.findings,
        })
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" : ", ": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_one_line_and_a_problem_is_no_health() {
        let mut diagnosis = Diagnosis { findings: vec![Finding::ok("disk", "5 GiB are free")] };
        assert!(diagnosis.is_healthy());
        assert_eq!(diagnosis.table(), "ok       disk: 5 GiB are free\n\nnothing is wrong");
        diagnosis.findings.push(Finding::warning("files", "few", "ulimit -n 4096"));
        assert!(diagnosis.is_healthy());
        diagnosis.findings.push(Finding::problem("port", "taken\n  by `x`", "end it"));
        assert!(!diagnosis.is_healthy());
        let lines: Vec<String> = diagnosis.table().lines().map(str::to_owned).collect();
        assert_eq!(
            lines[1..],
            [
                "warning  files: few: ulimit -n 4096",
                "problem  port: taken by `x`: end it",
                "",
                "1 problem(s), 1 warning(s)"
            ]
        );
        let json = diagnosis.json();
        assert_eq!((&json["healthy"], &json["findings"][2]["level"]), (&false.into(), &"problem".into()));
        assert!(json["findings"][0].get("remedy").is_none());
    }
}
