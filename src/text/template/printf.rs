//! Go's `fmt.Sprint` and `fmt.Sprintf`, as far as texts, integers and truth values go.

use crate::text::template::value::Value;

/// The widest field.
const MAX_WIDTH: usize = 1 << 16;

/// Operands one after the other, a blank between two of which neither is a text.
pub(super) fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for argument in arguments {
        let is_text = matches!(argument, Value::Text(_));
        if !out.is_empty() && !is_text && !before_is_text {
            out.push(' ');
        }
        out.push_str(&argument.to_string());
        before_is_text = is_text;
    }
    out
}

/// A format and its operands. What does not fit is marked in the output, as Go does.
pub(super) fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = |first: bool| {
            let mut digits = String::new();
            if first || chars.next_if_eq(&'.').is_some() {
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                return digits.parse::<usize>().ok().or((!first).then_some(0));
            }
            None
        };
        let (width, precision) = (number(true), number(false));
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match arguments.next() {
            None => format!("%!{verb}(MISSING)"),
            Some(argument) => one(verb, &flags, precision, argument),
        };
        let width = width.unwrap_or(0).min(MAX_WIDTH);
        let blanks = width.saturating_sub(text.chars().count());
        let zeros = flags.contains('0') && !flags.contains('-') && "dxXof".contains(verb);
        match (flags.contains('-'), zeros) {
            (true, _) => out.push_str(&format!("{text}{}", " ".repeat(blanks))),
            (false, false) => out.push_str(&format!("{}{text}", " ".repeat(blanks))),
            (false, true) => {
                let signed = text.strip_prefix(['-', '+']);
                let sign = text.len() - signed.map_or(text.len(), str::len);
                let (sign, digits) = text.split_at(sign);
                out.push_str(&format!("{sign}{}{digits}", "0".repeat(blanks)));
            }
        }
    }
    let extra: Vec<String> = arguments
        .map(|v| format!("{}={v}", v.type_name()))
        .collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn one(verb: char, flags: &str, precision: Option<usize>, value: &Value) -> String {
    let signed = |text: String, negative: bool| match flags.contains('+') && !negative {
        true => format!("+{text}"),
        false => text,
    };
    match (verb, value) {
        ('s' | 'v', Value::Text(text)) => match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        ('v', Value::Int(n)) | ('d', Value::Int(n)) => signed(n.to_string(), *n < 0),
        ('v', value) => value.to_string(),
        ('s', Value::List(_) | Value::Map(_) | Value::Record(_)) => value.to_string(),
        ('t', Value::Bool(b)) => b.to_string(),
        ('q', Value::Text(text)) => serde_json::to_string(text).unwrap_or_default(),
        ('x', Value::Int(n)) if *n >= 0 => format!("{n:x}"),
        ('X', Value::Int(n)) if *n >= 0 => format!("{n:X}"),
        ('o', Value::Int(n)) if *n >= 0 => format!("{n:o}"),
        ('c', Value::Int(n)) => {
            let c = u32::try_from(*n).ok().and_then(char::from_u32);
            c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        ('x', Value::Text(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('f', Value::Float(n)) => {
            let digits = precision.unwrap_or(6).min(100);
            signed(format!("{n:.digits$}"), n.is_sign_negative())
        }
        (verb, Value::Nil) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={value})", value.type_name()),
    }
}
