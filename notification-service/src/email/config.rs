use std::fmt;
use std::path::PathBuf;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use service_kit::config::Check;
use service_kit::service::Error;

use super::transport::{Smtp, Transport};

/// What a right address of the mail server looks like.
const FORMS: &str = "is not smtp://host:port, smtps://host:port or file:///folder";

/// How customers get e-mail.
#[derive(Clone, clap::Args)]
pub struct EmailConfig {
    /// The mail server (smtp://host:port, smtps://user:password@host:port), or a folder for one file each
    /// (file:///folder); empty sends none
    #[arg(
        long = "email-url",
        env = "NOTIFICATION_EMAIL_URL",
        default_value = "",
        value_name = "URL",
        hide_env_values = true
    )]
    pub url: String,
    /// Whom e-mail comes from
    #[arg(
        long = "email-from",
        env = "NOTIFICATION_EMAIL_FROM",
        default_value = "Orderflow <orders@orderflow.example>",
        value_name = "MAILBOX"
    )]
    pub from: String,
}

/// Where e-mail goes, read from its URL.
enum Target {
    Nowhere,
    Smtp,
    Folder(PathBuf),
}

impl EmailConfig {
    pub(crate) fn check(&self, check: &mut Check) {
        // The URL may hold a password, so it is not repeated.
        match self.target() {
            Some(Target::Smtp) if self.smtp().is_none() => {
                check.problem("--email-url", "NOTIFICATION_EMAIL_URL", FORMS);
            }
            None => check.problem("--email-url", "NOTIFICATION_EMAIL_URL", FORMS),
            Some(_) => {}
        }
        if self.from.parse::<Mailbox>().is_err() {
            let problem = format_args!("`{}` is not a mailbox such as Shop <shop@example.org>", self.from);
            check.problem("--email-from", "NOTIFICATION_EMAIL_FROM", problem);
        }
    }

    /// What takes e-mail, and whom it comes from; nothing if none is sent.
    pub(crate) fn transport(&self) -> Result<Option<(Transport, Mailbox)>, Error> {
        let from = self.from.parse().map_err(|error| Error::Own(Box::new(error)))?;
        let transport = match self.target() {
            Some(Target::Smtp) => self.smtp().map(|smtp| Transport::Smtp(Box::new(smtp))),
            Some(Target::Folder(folder)) => {
                std::fs::create_dir_all(&folder).map_err(|error| Error::Own(Box::new(error)))?;
                Some(Transport::Folder(folder))
            }
            Some(Target::Nowhere) | None => None,
        };
        Ok(transport.map(|transport| (transport, from)))
    }

    fn target(&self) -> Option<Target> {
        if self.url.is_empty() {
            return Some(Target::Nowhere);
        }
        match self.url.split_once("://")? {
            ("smtp" | "smtps", _) => Some(Target::Smtp),
            ("file", folder) if folder.starts_with('/') => Some(Target::Folder(folder.into())),
            _ => None,
        }
    }

    fn smtp(&self) -> Option<Smtp> {
        AsyncSmtpTransport::<Tokio1Executor>::from_url(&self.url).ok().map(Smtp::new)
    }
}

impl fmt::Debug for EmailConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailConfig").field("from", &self.from).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(url: &str, from: &str) -> Vec<String> {
        let mut check = Check::new();
        EmailConfig { url: url.to_owned(), from: from.to_owned() }.check(&mut check);
        check.finish().err().map(|error| error.problems().to_vec()).unwrap_or_default()
    }

    #[tokio::test]
    async fn right_addresses_pass_and_wrong_ones_are_not_repeated() {
        let from = "Shop <shop@example.org>";
        for url in ["", "smtp://127.0.0.1:25", "smtps://ada:pass%20word@mail.example:465", "file:///tmp/mails"] {
            assert_eq!(problems(url, from), Vec::<String>::new(), "{url}");
        }
        for url in ["127.0.0.1:25", "http://ada:secret@mail.example", "file://relative", "smtp://", "smtp://:secret:x"]
        {
            let problems = problems(url, from);
            assert_eq!(problems.len(), 1, "{url}");
            assert!(problems[0].contains("NOTIFICATION_EMAIL_URL"), "{problems:?}");
            assert!(!problems[0].contains("secret"), "{problems:?}");
        }
        for from in ["", "shop", "Shop <shop@example.org", "shop@example.org\r\nBcc: eve@example.org"] {
            assert_eq!(problems("", from).len(), 1, "{from:?}");
        }
    }

    #[test]
    fn a_password_is_in_no_debug_output() {
        let config = EmailConfig { url: "smtp://ada:secret@mail.example".into(), from: "shop@example.org".into() };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
