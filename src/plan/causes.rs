//! Errors and what caused them, in words.

use std::error::Error;

/// An error with its causes in one line. A cause that the text ends with already is not repeated: some errors name their
/// cause and keep it too.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("the disk is full")]
        Disk,
        #[error("the file was not written")]
        Silent(#[source] Box<Failure>),
        #[error("the step failed: {0}")]
        Named(#[source] Box<Failure>),
    }

    #[test]
    fn each_cause_is_named_once() {
        let [silent, named] = [Failure::Silent, Failure::Named].map(|outer| outer(Box::new(Failure::Disk)));
        assert_eq!(in_one_line(&silent), "the file was not written: the disk is full");
        assert_eq!(in_one_line(&named), "the step failed: the disk is full");
        let both = Failure::Named(Box::new(silent));
        assert_eq!(
            in_one_line(&both),
            "the step failed: the file was not written: the disk is full"
        );
        assert_eq!(in_one_line(&Failure::Disk), "the disk is full");
    }
}
