//! A method and the values of its parameters: one type for flags, manifests, recordings, calibrations and results.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Method;
use super::parameters::{LEARNING_RATE, Parameter, WEIGHT_DECAY};
use crate::setting::{SettingError, UNKNOWN};
use crate::tuning::AdamWSettings;

/// The parameters that files of earlier versions name for every method, whether it has them or not.
const WRITTEN_FOR_ALL: [&str; 6] = ["steps", "learning_rate", "weight_decay", "selection", "rank", "class_cutoff"];
/// The parameters that another method takes over; the others belong to a method and start from its own defaults.
const CARRIED_OVER: [&str; 4] = ["steps", "weight_decay", "rank", "class_cutoff"];
/// Most parameters of one method (count); with an array of fixed length the settings are `Copy`.
const PARAMETERS_MAX: usize = 8;

/// A method and the values of its parameters.
#[derive(Clone, Copy, PartialEq)]
pub struct MethodSettings {
    method: Method,
    /// Values in the order of the method's parameters; the rest is 0.
    values: [f64; PARAMETERS_MAX],
}

impl MethodSettings {
    /// The published settings of a method.
    pub fn of(method: Method) -> Self {
        let mut values = [0.0; PARAMETERS_MAX];
        values.iter_mut().zip(method.parameters()).for_each(|(value, parameter)| *value = parameter.default);
        Self { method, values }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The same settings for another method: parameters that belong to a method become the new one's own.
    pub(crate) fn with_method(self, method: Method) -> Self {
        if method == self.method {
            return self;
        }
        // Learning rate and selection stay behind: what is right for one method is far off for another.
        let mut changed = Self::of(method);
        for (name, value) in self.iter().filter(|(name, _)| CARRIED_OVER.contains(name)) {
            if let Some(place) = changed.place(name) {
                changed.values[place] = value;
            }
        }
        changed
    }

    /// The value of a parameter; `None` if the method has no such parameter.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.place(name).map(|place| self.values[place])
    }

    /// Gives a parameter a value.
    ///
    /// # Errors
    /// The method has no such parameter, or the value is out of its range.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), SettingError> {
        let Some(place) = self.place(name) else {
            let names: Vec<&str> = self.method.parameters().iter().map(|parameter| parameter.name).collect();
            let (found, mut expected) = match &names[..] {
                [] => (format!("{} has no parameters", self.method), String::new()),
                names => (format!("{} has no parameter {name}", self.method), format!("it has {}", names.join(", "))),
            };
            let others = Method::all().filter(|method| method.parameters().iter().any(|one| one.name == name));
            let others: Vec<&str> = others.map(Method::name).collect();
            if !others.is_empty() {
                expected += if expected.is_empty() { "" } else { "; " };
                expected += &format!("{name} is a parameter of {}", others.join(", "));
            }
            return Err(SettingError { what: UNKNOWN, expected, found });
        };
        self.method.parameters()[place].check(value)?;
        self.values[place] = value;
        Ok(())
    }

    /// Names and values of all parameters, in the method's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.method.parameters().iter().map(|parameter| parameter.name).zip(self.values)
    }

    /// The value of a parameter that the method's row lists.
    pub(crate) fn number(&self, parameter: &Parameter) -> f64 {
        self.get(parameter.name).expect("the method's row lists the parameter")
    }

    /// The value of a whole parameter that the method's row lists.
    pub(crate) fn count(&self, parameter: &Parameter) -> usize {
        self.number(parameter) as usize
    }

    /// The optimiser of a method that tunes.
    pub(crate) fn optimizer(&self) -> AdamWSettings {
        AdamWSettings {
            learning_rate: self.number(&LEARNING_RATE),
            weight_decay: self.number(&WEIGHT_DECAY),
            ..AdamWSettings::default()
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        // Parameters without a short name have an empty one, which must not match an empty name.
        let called = |parameter: &Parameter| parameter.name == name || (!name.is_empty() && parameter.short == name);
        self.method.parameters().iter().position(called)
    }

    /// Takes over a value from a file.
    fn read(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let optimizer = AdamWSettings::default();
        // Earlier versions wrote these as well. They cannot be set, so that other values are refused, not passed over.
        let constant = match name {
            "betas" => Some(serde_json::json!([optimizer.betas.0, optimizer.betas.1])),
            "epsilon" => Some(optimizer.epsilon.into()),
            _ => None,
        };
        if let Some(constant) = constant {
            return if *value == constant { Ok(()) } else { Err(format!("{name} is {value}, expected {constant}")) };
        }
        if self.place(name).is_none() && WRITTEN_FOR_ALL.contains(&name) {
            return Ok(());
        }
        let number = value.as_f64().ok_or_else(|| format!("{name} is {value}, expected a number"))?;
        self.set(name, number).map_err(|error| error.to_string())
    }

    /// The settings in the words that calibrations of earlier versions have them in.
    fn from_words(words: &str) -> Option<Self> {
        // As `class-lowrank, 3 steps at 0.02, selection 0.1, rank 16, cutoff 0.001`.
        let mut parts = words.split(", ");
        let mut settings = Self::of(Method::named(parts.next()?).ok()?);
        let (steps, rate) = parts.next()?.split_once(" steps at ")?;
        let mut take = |name: &str, text: &str| {
            let value = text.parse().ok()?;
            settings.read(name, &Value::Number(serde_json::Number::from_f64(value)?)).ok()
        };
        take("steps", steps)?;
        take("learning_rate", rate)?;
        for (name, word) in [("selection", "selection "), ("rank", "rank "), ("class_cutoff", "cutoff ")] {
            take(name, parts.next()?.strip_prefix(word)?)?;
        }
        Some(settings)
    }
}

/// Name and parameters, as `view-shift (steps 1, learning_rate 0.1)`.
impl fmt::Display for MethodSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.iter().map(|(name, value)| format!("{name} {value}")).collect();
        match &values[..] {
            [] => write!(f, "{}", self.method),
            values => write!(f, "{} ({})", self.method, values.join(", ")),
        }
    }
}

impl fmt::Debug for MethodSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A map of `method` and the parameters by name.
impl Serialize for MethodSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_as(self, "method", serializer)
    }
}

/// The map with the method under another key.
pub(crate) fn serialize_as<S: Serializer>(
    settings: &MethodSettings,
    key: &'static str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(key, settings.method.name())?;
    for (parameter, value) in settings.method.parameters().iter().zip(settings.values) {
        // An f64 would be written as `1.0`.
        if parameter.whole {
            map.serialize_entry(parameter.name, &(value as u64))?;
        } else {
            map.serialize_entry(parameter.name, &value)?;
        }
    }
    map.end()
}

/// Reads a map. A parameter that is left out has the method's default. Files of earlier versions call the method
/// `head`, `default` or `name`, or have all settings in words under `tuning`.
///
/// A type that the map is flattened into must have it as its last field: a name that no field before it has
/// taken is refused here.
impl<'de> Deserialize<'de> for MethodSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SettingsVisitor)
    }
}

struct SettingsVisitor;

impl<'de> Visitor<'de> for SettingsVisitor {
    type Value = MethodSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a method and its parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MethodSettings, A::Error> {
        // The method may stand behind its parameters, and which parameters there are depends on it.
        let (mut settings, mut entries) = (None, Vec::new());
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            let text = value.as_str().unwrap_or_default();
            match key.as_str() {
                "method" | "head" | "default" | "name" => {
                    settings = Some(MethodSettings::of(Method::named(text).map_err(A::Error::custom)?));
                }
                "tuning" => {
                    let unknown = || A::Error::custom(format!("the settings {text:?} cannot be read"));
                    settings = Some(MethodSettings::from_words(text).ok_or_else(unknown)?);
                }
                _ => entries.push((key, value)),
            }
        }
        let mut settings = settings.ok_or_else(|| A::Error::missing_field("method"))?;
        for (name, value) in entries {
            settings.read(&name, &value).map_err(A::Error::custom)?;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MethodSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn method(name: &str) -> Method {
        Method::named(name).unwrap()
    }

    #[test]
    fn every_default_is_in_its_range_and_fits_the_array() {
        for method in Method::all() {
            assert!(method.parameters().len() <= PARAMETERS_MAX, "{method}");
            for parameter in method.parameters() {
                parameter.check(parameter.default).unwrap();
            }
        }
    }

    #[test]
    fn settings_survive_json() {
        let mut settings = MethodSettings::of(method("class-lowrank"));
        settings.set("rank", 7.0).unwrap();
        settings.set("lr", 0.25).unwrap();
        let json = serde_json::to_string(&settings).unwrap();
        assert!(json.contains(r#""rank":7"#) && json.contains(r#""learning_rate":0.25"#), "{json}");
        assert_eq!(read(&json).unwrap(), settings);
    }

    #[test]
    fn files_of_earlier_versions_are_read() {
        let recorded = r#"{"head":"view-shift","steps":2,"selection":0.5,"rank":32,"class_cutoff":0.0,
            "learning_rate":0.2,"betas":[0.9,0.999],"epsilon":1e-8,"weight_decay":0.02}"#;
        let settings = read(recorded).unwrap();
        assert_eq!(settings.method().name(), "view-shift");
        assert_eq!(settings.get("steps"), Some(2.0));
        assert_eq!(settings.get("learning_rate"), Some(0.2));
        assert_eq!(settings.get("selection"), Some(0.5));
        assert_eq!(settings.get("weight_decay"), Some(0.02));
        assert_eq!(settings.get("rank"), None);
        let words = r#"{"tuning":"class-lowrank, 3 steps at 0.02, selection 0.1, rank 16, cutoff 0.001"}"#;
        let settings = read(words).unwrap();
        assert_eq!(settings.get("rank"), Some(16.0));
        assert_eq!(settings.get("cutoff"), Some(0.001));
        assert_eq!(read(r#"{"name":"zero"}"#).unwrap(), MethodSettings::of(method("zero")));
    }

    #[test]
    fn what_a_method_does_not_have_is_refused() {
        for (json, part) in [
            (
                r#"{"method":"zero","lambda":2}"#,
                "zero has no parameter lambda; it has selection; lambda is a parameter of dbd",
            ),
            (r#"{"method":"mta","wrong":2}"#, "mta has no parameters"),
            (r#"{"method":"mta","lambda":2}"#, "mta has no parameters; lambda is a parameter of dbd"),
            (r#"{"method":"new"}"#, "view-shift"),
            (r#"{"steps":1}"#, "method"),
            (r#"{"method":"class-shift","steps":"one"}"#, "expected a number"),
            (r#"{"method":"class-shift","steps":1.5}"#, "whole number"),
            (r#"{"method":"class-shift","betas":[0.5,0.9]}"#, "expected [0.9,0.999]"),
            (r#"{"tuning":"class-shift, soon"}"#, "cannot be read"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }

    #[test]
    fn values_are_checked_on_both_sides_of_every_bound() {
        let mut settings = MethodSettings::of(method("class-lowrank"));
        for (name, good, bad) in [
            ("steps", [1.0, 100.0], [0.0, 101.0]),
            ("learning_rate", [1e-9, 1e3], [0.0, 1001.0]),
            ("selection", [1e-9, 1.0], [0.0, 1.1]),
            ("weight_decay", [0.0, 1.0], [-0.1, 1.1]),
            ("class_cutoff", [0.0, 0.0999], [-1e-9, 0.1]),
            ("rank", [1.0, 8192.0], [0.0, 8193.0]),
        ] {
            for value in good {
                settings.set(name, value).unwrap();
            }
            for value in bad {
                settings.set(name, value).unwrap_err();
            }
            settings.set(name, f64::NAN).unwrap_err();
        }
    }

    #[test]
    fn another_method_brings_its_own_rate_and_selection() {
        let mut settings = MethodSettings::of(method("class-shift"));
        settings.set("steps", 3.0).unwrap();
        settings.set("learning_rate", 0.125).unwrap();
        let changed = settings.with_method(method("view-shift"));
        assert_eq!((changed.get("steps"), changed.get("learning_rate")), (Some(3.0), Some(0.1)));
        assert_eq!(settings.with_method(method("class-shift")), settings);
    }
}
