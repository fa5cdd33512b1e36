//! `--filter`, the same for every verb that has it.

use crate::ops::filters::FilterError;
use crate::ops::image::filter::{self, Filters};

/// Filters as given.
#[derive(clap::Args)]
pub(super) struct FilterArgs {
    /// Only images for which this holds: dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE,
    /// since=IMAGE, until=TIME (an age such as 12h or 30d, a date, Unix seconds), used=TIME (last used then or before),
    /// reference=PATTERN; may be repeated
    #[arg(short = 'f', long = "filter", value_name = "FILTER", value_parser = filter::split, add = super::completion::image_filters())]
    filters: Vec<(String, String)>,
}

/// The same without the short form, which is `--force` there.
#[derive(clap::Args)]
pub(super) struct LongFilterArgs {
    /// Only images for which this holds: dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE,
    /// since=IMAGE, until=TIME (an age such as 12h or 30d, a date, Unix seconds), used=TIME (last used then or before),
    /// reference=PATTERN; may be repeated
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter::split, add = super::completion::image_filters())]
    filters: Vec<(String, String)>,
}

impl FilterArgs {
    /// Reads them; ages count from now.
    pub(super) fn parse(&self) -> Result<Filters, FilterError> {
        Filters::parse(&self.filters, jiff::Timestamp::now())
    }
}

impl LongFilterArgs {
    /// Reads them; ages count from now.
    pub(super) fn parse(&self) -> Result<Filters, FilterError> {
        Filters::parse(&self.filters, jiff::Timestamp::now())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Those about labels, which things other than images have too.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        let labels = self
            .filters
            .iter()
            .filter(|(name, _)| name.starts_with("label"));
        labels.cloned().collect()
    }

    /// Whether one of them says something that only images have.
    pub(super) fn is_about_images(&self) -> bool {
        let common = ["label", "label!", "until"];
        self.filters
            .iter()
            .any(|(name, _)| !common.contains(&name.as_str()))
    }

    /// Those that containers have too.
    pub(super) fn of_containers(&self) -> Vec<(String, String)> {
        let mut filters = self.labels();
        let until = self.filters.iter().filter(|(name, _)| name == "until");
        filters.extend(until.cloned());
        filters
    }

    /// As given, for a prompt.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.filters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
    }
}
