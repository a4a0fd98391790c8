//! What a component is made of, looked at before it is compiled.
//!
//! A compiler does what it is told: a file of a few hundred bytes can ask for a million instances, and one of a megabyte for a function
//! that takes minutes and gigabytes to compile. So what a tool that makes plugins never writes is refused first, by counting. What is
//! left costs about as much as the file is long.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef,
    Instance, Operator, Parser, Payload, TableType, TypeRef,
};

use crate::PluginError;
use crate::error::one_line;

/// Bytes of one function. The interpreter loops of Python and JavaScript engines have 430 and 170 KB.
const MAX_FUNCTION: u64 = 1024 * 1024;

/// Blocks within one another, in one function. A Python engine has up to 800.
const MAX_NESTING: u64 = 2000;

/// What one function asks of the compiler: its blocks and the targets of its `br_table` instructions, times its local variables, since
/// at each place where ways meet each variable may be another one. A JavaScript engine has up to 200 000.
const MAX_WORK: u64 = 1_000_000;

/// The same, of all functions together. A JavaScript engine has 4 000 000.
const MAX_WORK_TOGETHER: u64 = 20_000_000;

/// Functions of all modules. Python and JavaScript engines have some 13 000.
const MAX_FUNCTIONS: u64 = 100_000;

/// Core modules and components in a file. An engine with its libraries has some 30.
const MAX_PARTS: usize = 100;

/// Components within one another.
const MAX_DEPTH: usize = 5;

/// Instances of core modules and components that one instance of the plugin consists of. A Python engine has 41.
const MAX_INSTANCES: u64 = 256;

/// Memories of one instance of the plugin: each takes 4 GiB of the addresses of the process.
pub(crate) const MAX_MEMORIES: u64 = 8;

/// Elements that the tables of one instance of the plugin begin with.
const MAX_ELEMENTS: u64 = 1_000_000;

/// Bytes that the host holds for the globals, functions and imports of one instance of the plugin.
const MAX_HELD: u64 = 8 * 1024 * 1024;

/// Bytes that the host holds for each: as wasmtime lays instances out, or more.
const GLOBAL: u64 = 16;
const FUNCTION: u64 = 32;
const IMPORT: u64 = 32;

/// What one instance of a module, a component or a plugin takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Linear memories.
    pub(crate) memories: u64,
    instances: u64,
    elements: u64,
    held: u64,
}

impl Shape {
    fn add(&mut self, other: Shape) {
        self.memories = self.memories.saturating_add(other.memories);
        self.instances = self.instances.saturating_add(other.instances);
        self.elements = self.elements.saturating_add(other.elements);
        self.held = self.held.saturating_add(other.held);
    }

    fn check(&self) -> Result<(), PluginError> {
        for (what, found, most) in [
            ("memories", self.memories, MAX_MEMORIES),
            (
                "instances of modules and components",
                self.instances,
                MAX_INSTANCES,
            ),
            ("elements in its tables", self.elements, MAX_ELEMENTS),
            ("bytes of globals, functions and imports", self.held, MAX_HELD),
        ] {
            if found > most {
                return Err(too_many(what, found, most));
            }
        }
        Ok(())
    }
}

/// A module or component that is being read.
#[derive(Default)]
struct Part {
    own: Shape,
    /// What is defined in it, by index. Nothing else can be instantiated.
    modules: Vec<Shape>,
    components: Vec<Shape>,
    is_module: bool,
}

fn refuse(text: impl Into<String>) -> PluginError {
    PluginError::Invalid(text.into())
}

fn too_many(what: &str, found: u64, most: u64) -> PluginError {
    refuse(format!(
        "it has {found} {what}, and {most} is the most that is taken"
    ))
}

fn foreign() -> PluginError {
    refuse(
        "it imports, exports or borrows modules or components, which no plugin needs; put it together first (`wac plug`)",
    )
}

/// What the reader says of a file.
pub(crate) fn broken(error: wasmparser::BinaryReaderError) -> PluginError {
    refuse(one_line(&error.to_string(), 512))
}

/// Counts what a component is made of, and refuses it if that is too much. It need not be valid: that is looked at when it is compiled.
pub(crate) fn look(binary: &[u8]) -> Result<Shape, PluginError> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut seen, mut functions, mut work) = (0, 0, 0);
    for payload in Parser::new(0).parse_all(binary) {
        let payload = payload.map_err(broken)?;
        if let Payload::Version { encoding, .. } = payload {
            seen += 1;
            if seen > MAX_PARTS {
                return Err(too_many("modules and components", seen as u64, MAX_PARTS as u64));
            }
            if parts.len() >= MAX_DEPTH {
                return Err(too_many(
                    "components within one another",
                    parts.len() as u64 + 1,
                    MAX_DEPTH as u64,
                ));
            }
            parts.push(Part {
                is_module: encoding == wasmparser::Encoding::Module,
                own: Shape {
                    instances: 1,
                    ..Shape::default()
                },
                ..Part::default()
            });
            continue;
        }
        let Some(part) = parts.last_mut() else { continue };
        match payload {
            Payload::CodeSectionStart { count, .. } => {
                functions += u64::from(count);
                if functions > MAX_FUNCTIONS {
                    return Err(too_many("functions", functions, MAX_FUNCTIONS));
                }
            }
            Payload::CodeSectionEntry(body) => {
                work += work_of(&body)?;
                if work > MAX_WORK_TOGETHER {
                    return Err(too_many(
                        "branches, times local variables",
                        work,
                        MAX_WORK_TOGETHER,
                    ));
                }
            }
            Payload::End(_) => {
                let Some(done) = parts.pop() else { continue };
                done.own.check()?;
                match parts.last_mut() {
                    None => return Ok(done.own),
                    Some(outer) if done.is_module => outer.modules.push(done.own),
                    Some(outer) => outer.components.push(done.own),
                }
            }
            other => section(part, other)?,
        }
    }
    Err(refuse("it ends in the middle"))
}

/// One section of a module or component.
fn section(part: &mut Part, payload: Payload<'_>) -> Result<(), PluginError> {
    match payload {
        // Of a core module.
        Payload::ImportSection(imports) => {
            for import in imports.into_imports() {
                let import = import.map_err(broken)?;
                part.own.held += IMPORT;
                if matches!(import.ty, TypeRef::Global(_)) {
                    part.own.held += GLOBAL;
                }
            }
        }
        Payload::FunctionSection(functions) => part.own.held += FUNCTION * u64::from(functions.count()),
        Payload::GlobalSection(globals) => part.own.held += GLOBAL * u64::from(globals.count()),
        Payload::MemorySection(memories) => {
            part.own.memories += u64::from(memories.count());
            part.own.held += IMPORT * u64::from(memories.count());
        }
        Payload::TableSection(tables) => {
            for table in tables {
                let TableType { initial, .. } = table.map_err(broken)?.ty;
                part.own.held += IMPORT;
                part.own.elements = part.own.elements.saturating_add(initial);
            }
        }
        // Of a component.
        Payload::InstanceSection(instances) => {
            for instance in instances {
                if let Instance::Instantiate { module_index, .. } = instance.map_err(broken)? {
                    let module = part.modules.get(module_index as usize).copied();
                    part.own.add(module.ok_or_else(foreign)?);
                }
            }
        }
        Payload::ComponentInstanceSection(instances) => {
            for instance in instances {
                if let ComponentInstance::Instantiate { component_index, .. } = instance.map_err(broken)? {
                    let component = part.components.get(component_index as usize).copied();
                    part.own.add(component.ok_or_else(foreign)?);
                }
            }
        }
        Payload::ComponentAliasSection(aliases) => {
            for alias in aliases {
                match alias.map_err(broken)? {
                    ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::CoreModule | ComponentOuterAliasKind::Component,
                        ..
                    }
                    | ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Module | ComponentExternalKind::Component,
                        ..
                    } => return Err(foreign()),
                    _ => {}
                }
            }
        }
        Payload::ComponentImportSection(imports) => {
            for import in imports {
                if let ComponentTypeRef::Module(_) | ComponentTypeRef::Component(_) =
                    import.map_err(broken)?.ty
                {
                    return Err(foreign());
                }
            }
        }
        Payload::ComponentExportSection(exports) => {
            for export in exports {
                if let ComponentExternalKind::Module | ComponentExternalKind::Component =
                    export.map_err(broken)?.kind
                {
                    return Err(foreign());
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// What one function of a core module asks of the compiler.
fn work_of(body: &wasmparser::FunctionBody<'_>) -> Result<u64, PluginError> {
    let size = body.range().len() as u64;
    if size > MAX_FUNCTION {
        return Err(too_many("bytes in one function", size, MAX_FUNCTION));
    }
    let mut locals = 1;
    for local in body.get_locals_reader().map_err(broken)? {
        locals += u64::from(local.map_err(broken)?.0);
    }
    let (mut depth, mut ways) = (0, 1);
    let mut operators = body.get_operators_reader().map_err(broken)?;
    while !operators.eof() {
        match operators.read().map_err(broken)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                depth += 1;
                ways += 1;
                if depth > MAX_NESTING {
                    return Err(too_many("blocks within one another", depth, MAX_NESTING));
                }
            }
            Operator::End => depth = depth.saturating_sub(1),
            Operator::BrTable { targets } => ways += u64::from(targets.len()),
            _ => {}
        }
    }
    let work = ways * locals;
    if work > MAX_WORK {
        return Err(too_many(
            "branches, times local variables, in one function",
            work,
            MAX_WORK,
        ));
    }
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wat: &str) -> String {
        look(&wat::parse_str(wat).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_a_component_consists_of_is_counted_through_all_that_it_instantiates() {
        let wat = r#"(component
            (core module $m (memory 1) (table 3 funcref) (global i32 (i32.const 0)) (func))
            (component $c
                (core module $n (memory 1))
                (core instance (instantiate $n))
                (core instance (instantiate $n)))
            (core instance (instantiate $m))
            (instance (instantiate $c)))"#;
        let shape = look(&wat::parse_str(wat).unwrap()).unwrap();
        let held = GLOBAL + FUNCTION + IMPORT + 3 * IMPORT;
        assert_eq!(
            shape,
            Shape {
                memories: 3,
                // Itself, one of the module, one of the component, two in that one.
                instances: 5,
                elements: 3,
                held
            }
        );
    }

    #[test]
    fn a_few_bytes_that_ask_for_a_million_instances_are_refused() {
        let ten = |what: &str| format!("({what})").repeat(10);
        let mut inner = format!("(core module $m) {}", ten("core instance (instantiate $m)"));
        for _ in 0..3 {
            inner = format!("(component $c {inner}) {}", ten("instance (instantiate $c)"));
        }
        let error = refusal(&format!("(component {inner})"));
        assert!(error.contains("instances of modules and components"), "{error}");
        // Nor by another way to name what there is.
        for wat in [
            "(component $o (core module $m) (component (alias outer $o $m (core module))))",
            "(component $o (component $c) (component (alias outer $o $c (component))))",
            r#"(component (import "x" (core module)))"#,
            r#"(component (import "x" (component)))"#,
            r#"(component (core module $m) (export "x" (core module $m)))"#,
            r#"(component (component $c) (export "x" (component $c)))"#,
            r#"(component (component $c (core module $m) (export "m" (core module $m))) (instance $i (instantiate $c))
                (alias export $i "m" (core module)))"#,
        ] {
            let error = refusal(wat);
            assert!(error.contains("imports, exports or borrows"), "{wat}: {error}");
        }
        let deep = format!("{}{}", "(component ".repeat(6), ")".repeat(6));
        assert!(refusal(&deep).contains("components within one another"));
        let many = format!("(component {})", "(core module)".repeat(100));
        assert!(refusal(&many).contains("101 modules and components"));
    }

    #[test]
    fn memory_that_no_limit_of_an_instance_counts_is_bounded() {
        let module = |what: &str, count| format!("(module {})", what.repeat(count));
        let globals = refusal(&module("(global i64 (i64.const 0))", 600_000));
        assert!(
            globals.contains("bytes of globals, functions and imports"),
            "{globals}"
        );
        let memories = refusal(&module("(memory 0)", 9));
        assert!(memories.contains("9 memories, and 8 is the most"), "{memories}");
        let tables = refusal(&module("(table 600000 funcref)", 2));
        assert!(tables.contains("1200000 elements"), "{tables}");
        // Little, many times.
        let many = format!(
            "(component (core module $m {}) {})",
            "(global i64 (i64.const 0))".repeat(20_000),
            "(core instance (instantiate $m))".repeat(40),
        );
        assert!(refusal(&many).contains("bytes of globals"));
    }

    #[test]
    fn functions_that_take_minutes_to_compile_are_refused() {
        let function = |body: &str| refusal(&format!("(module (func {body}))"));
        let deep = format!("{}{}", "(block ".repeat(2001), ")".repeat(2001));
        assert!(function(&deep).contains("2001 blocks within one another"));
        let long = function(&"nop ".repeat(1_100_000));
        assert!(long.contains("bytes in one function"), "{long}");
        // Ways that meet, with many variables that may differ where they do.
        let wide = format!("(local {}) {}", "i32 ".repeat(1000), "(loop)".repeat(1000));
        assert!(function(&wide).contains("times local variables, in one function"));
        let table = format!("(block (br_table {} (i32.const 0)))", "0 ".repeat(1000));
        let table = format!("(local {}) {table}", "i32 ".repeat(1000));
        assert!(function(&table).contains("times local variables, in one function"));
        let many = refusal(&format!("(module {})", "(func)".repeat(100_001)));
        assert!(many.contains("100001 functions"), "{many}");
        let half = format!("(func (local {}) {})", "i32 ".repeat(900), "(loop)".repeat(900));
        let together = refusal(&format!("(module {})", half.repeat(25)));
        assert!(
            together.contains("times local variables, and 20000000"),
            "{together}"
        );
    }

    #[test]
    fn what_ends_in_the_middle_is_refused() {
        let whole = wat::parse_str("(component (core module (func)))").unwrap();
        let engine = crate::Engine::new(crate::EngineOptions::default()).unwrap();
        let compiled = |bytes: &[u8]| wasmtime::component::Component::new(engine.wasmtime(), bytes);
        // The first eight bytes alone are a component without anything in it.
        for length in (0..whole.len()).filter(|length| *length != 8) {
            let part = &whole[..length];
            // Between two sections nothing is begun that could be missed here; the compiler knows how long the module is.
            assert!(look(part).is_err() || compiled(part).is_err(), "{length}");
        }
        assert!(compiled(&whole).is_ok());
        assert!(look(&whole).is_ok());
    }
}
