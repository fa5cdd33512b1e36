//! The variables of a container: what was asked for is kept in its record, what every container has besides is added when a
//! process starts. So a committed image holds configuration and nothing of one run.

use crate::ops::container::run::DEFAULT_PATH;
use crate::store::containers::ContainerRecord;

/// Sets a variable. One without a value is taken away, and stands there by its name alone: what the runtime would add under it
/// stays away too.
pub fn set(env: &mut Vec<String>, variable: &str) {
    let name = name_of(variable);
    let at = env.iter().position(|other| name_of(other) == name);
    match at.and_then(|at| env.get_mut(at)) {
        Some(place) => *place = variable.to_owned(),
        None => env.push(variable.to_owned()),
    }
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Those of a configuration that have a value.
pub fn with_values(env: &[String]) -> impl Iterator<Item = &String> {
    env.iter().filter(|variable| variable.contains('='))
}

/// What a container's process gets: docker's defaults, then what its record has.
pub fn of_process(record: &ContainerRecord) -> Vec<String> {
    let mut env = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={}", record.hostname),
    ];
    if record.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &record.config.env {
        set(&mut env, variable);
    }
    env.retain(|variable| variable.contains('='));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts_in_the_place_of_the_first() {
        let mut env = Vec::new();
        for variable in ["A=1", "B=2", "A=3", "C=", "B", "D"] {
            set(&mut env, variable);
        }
        assert_eq!(env, ["A=3", "B", "C=", "D"]);
        assert_eq!(with_values(&env).collect::<Vec<_>>(), ["A=3", "C="]);
    }
}
