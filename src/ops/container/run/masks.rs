//! What kernel files a container does not see, and which it can only read: one list for every way of running one.

/// They tell of the host, or change it.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
];

/// What can only be read.
pub const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What is covered: with the temperature history of each processor, where the kernel shows one.
pub fn masked() -> Vec<String> {
    let mut all: Vec<String> = MASKED.map(str::to_owned).to_vec();
    let processors = "/sys/devices/system/cpu";
    // Without a /sys there is nothing to cover.
    for entry in std::fs::read_dir(processors)
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        let is_one = number.is_some_and(|n| n.parse::<u32>().is_ok());
        if is_one && entry.path().join("thermal_throttle").exists() {
            let name = name.to_string_lossy();
            all.push(format!("{processors}/{name}/thermal_throttle"));
        }
    }
    all.sort();
    all
}
