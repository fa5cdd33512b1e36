//! A filter as a program of the kernel's: classic BPF over number, architecture and arguments of a call.
//!
//! For every binary interface the calls are ranges of numbers with the same answer, found by bisection; calls with conditions
//! on their arguments are ranges of one. Numbers above the largest that the profile names are `ENOSYS`, whatever they will
//! once mean: a program then does without, as it does on the kernel it was not made for.

use super::numbers::{ARM_PRIVATE, Abi, X32_BIT, is_word};
use super::{Action, Comparison, Condition, Filter, Rule};

/// `code`, `jt`, `jf`, `k` of a `sock_filter`.
pub type Instruction = (u16, u8, u8, u32);

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The longest program that the kernel takes.
const MAX_LENGTH: usize = 4096;

/// What a range of numbers leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Always(Action),
    /// The first whose conditions all hold, else the last.
    If(Vec<(Vec<(Condition, bool)>, Action)>, Action),
}

impl Filter {
    /// The program. `Err` says why the kernel would not take it.
    pub fn program(&self) -> Result<Vec<Instruction>, String> {
        let mut blocks = Vec::new();
        for abi in &self.abis {
            if *abi != Abi::X32 {
                blocks.push((abi.audit(), self.block(*abi)?));
            }
        }
        let mut program = vec![(LOAD, 0, 0, ARCHITECTURE)];
        for (audit, block) in blocks {
            let over = u32::try_from(block.len()).map_err(|error| error.to_string())?;
            program.push((IF_EQUAL, 1, 0, audit));
            program.push((JUMP, 0, 0, over));
            program.extend(block);
        }
        // A program of a kind that the profile does not speak of.
        program.push((RETURN, 0, 0, Action::KillProcess.code()));
        match program.len() {
            length if length <= MAX_LENGTH => Ok(program),
            length => Err(format!(
                "the seccomp profile is too long: {length} instructions, the kernel takes {MAX_LENGTH}"
            )),
        }
    }

    fn block(&self, abi: Abi) -> Result<Vec<Instruction>, String> {
        let mut ranges = self.ranges(abi)?;
        if abi == Abi::X86_64 {
            ranges.retain(|(from, _)| *from < X32_BIT);
            match self.abis.contains(&Abi::X32) {
                true => ranges.extend(self.ranges(Abi::X32)?),
                false => ranges.push((X32_BIT, Answer::Always(Action::KillProcess))),
            }
            // No call at all; a tracer that skips one says so.
            ranges.push((u32::MAX, Answer::Always(Action::Errno(ENOSYS))));
        }
        let mut block = vec![(LOAD, 0, 0, NUMBER)];
        block.extend(search(&ranges)?);
        Ok(block)
    }

    /// The answers of an interface by rising number; each holds up to the next.
    fn ranges(&self, abi: Abi) -> Result<Vec<(u32, Answer)>, String> {
        let mut calls: Vec<(u32, &str, &Rule)> = Vec::new();
        for rule in &self.rules {
            let names = rule.names.iter();
            calls.extend(names.filter_map(|name| Some((abi.number(name)?, name.as_str(), rule))));
        }
        // Stable: rules for one call stay in their order.
        calls.sort_by_key(|(number, ..)| *number);
        let last = calls.iter().map(|(number, ..)| *number);
        let last = last.filter(|number| abi != Abi::Arm || *number < ARM_PRIVATE);
        let last = last.max();
        let unknown = match self.default {
            default if default.lets_through() => default,
            _ => Action::Errno(ENOSYS),
        };
        let start = match abi {
            Abi::X32 => X32_BIT,
            _ => 0,
        };
        let mut ranges = vec![(start, Answer::Always(self.default))];
        let mut add = |from: u32, answer: Answer| match ranges.last_mut() {
            Some((at, last)) if *at == from => *last = answer,
            _ => ranges.push((from, answer)),
        };
        for rules in calls.chunk_by(|one, other| one.0 == other.0) {
            let Some((number, name, _)) = rules.first() else {
                continue;
            };
            add(*number, self.answer(name, rules)?);
            let newer = last.is_some_and(|last| *number >= last);
            let between = if newer { unknown } else { self.default };
            add(number.saturating_add(1), Answer::Always(between));
        }
        ranges.dedup_by(|next, before| next.1 == before.1);
        Ok(ranges)
    }

    fn answer(&self, name: &str, rules: &[(u32, &str, &Rule)]) -> Result<Answer, String> {
        let mut always = None;
        let mut cases = Vec::new();
        for (_, _, rule) in rules {
            if rule.conditions.is_empty() {
                if always.is_some_and(|other| other != rule.action) {
                    return Err(format!("the seccomp profile has two answers for {name}"));
                }
                always = Some(rule.action);
                continue;
            }
            for conditions in rule.alternatives() {
                let conditions = conditions.into_iter();
                let conditions = conditions.map(|one| (one, is_word(name, one.argument)));
                cases.push((conditions.collect(), rule.action));
            }
        }
        // A rule for every call of a name leaves nothing to the others, as with libseccomp.
        Ok(match always {
            Some(action) => Answer::Always(action),
            None => Answer::If(cases, self.default),
        })
    }
}

/// `ENOSYS`, small enough for an action.
const ENOSYS: u16 = 38;

/// Finds the range of the number in the accumulator.
fn search(ranges: &[(u32, Answer)]) -> Result<Vec<Instruction>, String> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((middle, answer)) = high.first() else {
        return Err("a seccomp profile without an answer".to_owned());
    };
    if low.is_empty() {
        return answers(answer);
    }
    let (low, high) = (search(low)?, search(high)?);
    let mut found = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(over) => found.push((IF_AT_LEAST, over, 0, *middle)),
        Err(_) => {
            let over = u32::try_from(low.len()).map_err(|error| error.to_string())?;
            found.push((IF_AT_LEAST, 0, 1, *middle));
            found.push((JUMP, 0, 0, over));
        }
    }
    found.extend(low);
    found.extend(high);
    Ok(found)
}

fn answers(answer: &Answer) -> Result<Vec<Instruction>, String> {
    let end = |action: Action| (RETURN, 0, 0, action.code());
    match answer {
        Answer::Always(action) => Ok(vec![end(*action)]),
        Answer::If(cases, otherwise) => {
            let mut program = Vec::new();
            for (conditions, action) in cases {
                program.extend(case(conditions, end(*action))?);
            }
            program.push(end(*otherwise));
            Ok(program)
        }
    }
}

/// Where a step of a comparison goes.
#[derive(Clone, Copy)]
enum To {
    /// On to the next step.
    Next,
    /// The condition holds.
    Holds,
    /// It does not, and the case with it.
    Fails,
}

/// All conditions, then `end`; whatever fails goes on behind that.
fn case(conditions: &[(Condition, bool)], end: Instruction) -> Result<Vec<Instruction>, String> {
    let steps: Vec<Vec<(u16, To, To, u32)>> = conditions
        .iter()
        .map(|(condition, word)| comparison(condition, *word))
        .collect();
    let total: usize = steps.iter().map(Vec::len).sum();
    let mut program = Vec::with_capacity(total + 1);
    let mut done = 0;
    for steps in steps {
        done += steps.len();
        for (code, yes, no, value) in steps {
            let next = program.len() + 1;
            let offset = |to: To| {
                let target = match to {
                    To::Next => next,
                    To::Holds => done,
                    To::Fails => total + 1,
                };
                u8::try_from(target - next).map_err(|error| error.to_string())
            };
            program.push((code, offset(yes)?, offset(no)?, value));
        }
    }
    program.push(end);
    Ok(program)
}

/// The steps of one comparison. Without `word` the upper half decides first.
fn comparison(condition: &Condition, word: bool) -> Vec<(u16, To, To, u32)> {
    use To::{Fails, Holds, Next};
    let (high, low) = halves(condition.value);
    let word = word && high == 0;
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    // Little-endian: all machines that there are tables for.
    let load = |offset: u32| (LOAD, Next, Next, offset);
    let mut steps = Vec::new();
    let upper = |steps: &mut Vec<_>, rest: &[(u16, To, To, u32)]| {
        if !word {
            steps.push(load(at + 4));
            steps.extend_from_slice(rest);
        }
        steps.push(load(at));
    };
    match condition.comparison {
        Comparison::Equal => {
            upper(&mut steps, &[(IF_EQUAL, Next, Fails, high)]);
            steps.push((IF_EQUAL, Holds, Fails, low));
        }
        Comparison::NotEqual => {
            upper(&mut steps, &[(IF_EQUAL, Next, Holds, high)]);
            steps.push((IF_EQUAL, Fails, Holds, low));
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let more = [
                (IF_GREATER, Holds, Next, high),
                (IF_EQUAL, Next, Fails, high),
            ];
            upper(&mut steps, &more);
            let code = match condition.comparison {
                Comparison::Greater => IF_GREATER,
                _ => IF_AT_LEAST,
            };
            steps.push((code, Holds, Fails, low));
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let less = [
                (IF_GREATER, Fails, Next, high),
                (IF_EQUAL, Next, Holds, high),
            ];
            upper(&mut steps, &less);
            let code = match condition.comparison {
                Comparison::Less => IF_AT_LEAST,
                _ => IF_GREATER,
            };
            steps.push((code, Fails, Holds, low));
        }
        Comparison::Masked(mask) => {
            let (mask_high, mask_low) = halves(mask);
            let rest = [
                (AND, Next, Next, mask_high),
                (IF_EQUAL, Next, Fails, high & mask_high),
            ];
            upper(&mut steps, &rest);
            steps.push((AND, Next, Next, mask_low));
            steps.push((IF_EQUAL, Holds, Fails, low & mask_low));
        }
    }
    steps
}

fn halves(value: u64) -> (u32, u32) {
    let bytes = value.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    (
        u32::from_le_bytes([e, f, g, h]),
        u32::from_le_bytes([a, b, c, d]),
    )
}
