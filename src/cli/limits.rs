//! Options of every verb that takes layers in: how much one may hold, and all together.

use crate::layer::Limits;

/// Bounds on a layer.
#[derive(clap::Args)]
pub(super) struct LimitArgs {
    /// Refuse layers larger than this uncompressed (bytes, or with k, m, g, t)
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64g")]
    max_layer_size: u64,
    /// Refuse layers with more entries than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_entries)]
    max_layer_entries: u64,
    /// Refuse paths with more components than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_depth)]
    max_path_depth: usize,
    /// Refuse layers whose names, link targets and extended attributes are larger than this together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1g")]
    max_layer_metadata: u64,
    /// Refuse images whose layers are larger than this together, uncompressed
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256g")]
    max_image_size: u64,
    /// Leave this much of the disk free [default: a hundredth, at most 64m]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep_free: Option<u64>,
}

impl LimitArgs {
    /// As the layer module takes them.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_tar_bytes: self.max_layer_size,
            max_entries: self.max_layer_entries,
            max_depth: self.max_path_depth,
            max_metadata_bytes: self.max_layer_metadata,
            max_total_bytes: self.max_image_size,
            keep_free: self.keep_free,
            ..Limits::default()
        }
    }
}

/// `1048576`, `64m`, `2GiB`: powers of 1024, as docker's memory options.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let number = number.strip_suffix('i').unwrap_or(number);
    let (digits, shift) = match number.chars().last() {
        Some('k') => (number.strip_suffix('k'), 10),
        Some('m') => (number.strip_suffix('m'), 20),
        Some('g') => (number.strip_suffix('g'), 30),
        Some('t') => (number.strip_suffix('t'), 40),
        _ => (Some(number), 0),
    };
    let parsed = digits
        .and_then(|d| d.parse::<u64>().ok())
        .and_then(|n| n.checked_mul(1 << shift));
    parsed.ok_or_else(|| {
        format!("{text:?} is no size: expected a number of bytes, or with k, m, g, t")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("1k", 1 << 10),
            ("64M", 64 << 20),
            ("2GiB", 2 << 30),
            ("1tb", 1 << 40),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1.5.g",
            "99999999999999999999",
            "20000000t",
            "1kk",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
