//! Small components written as text.

#![allow(clippy::unwrap_used, dead_code)]

/// A component whose `run` executes `body` and then returns `ok(output)`. `imports` stands at the component's top, after the core
/// instance `$mem` with memory and realloc; `lowered` lists `(name core-signature lowering)` for functions the body calls.
pub struct Text<'a> {
    pub imports: &'a str,
    pub lowered: &'a [(&'a str, &'a str, &'a str)],
    pub locals: &'a str,
    pub body: &'a str,
    pub output: &'a str,
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self {
            imports: "",
            lowered: &[],
            locals: "",
            body: "",
            output: "{}",
        }
    }
}

impl Text<'_> {
    pub fn build(&self) -> Vec<u8> {
        let Self {
            imports,
            locals,
            body,
            output,
            ..
        } = self;
        let mut lowers = String::new();
        let mut core_imports = String::new();
        let mut given = String::new();
        for (name, signature, function) in self.lowered {
            lowers.push_str(&format!(
                "(core func ${name} (canon lower (func {function}) (memory (core memory $mem \"memory\")) (realloc (core func $mem \"realloc\"))))\n"
            ));
            core_imports.push_str(&format!(
                "(import \"host\" \"{name}\" (func ${name} {signature}))\n"
            ));
            given.push_str(&format!("(export \"{name}\" (func ${name}))\n"));
        }
        let host = if given.is_empty() {
            String::new()
        } else {
            format!("(with \"host\" (instance {given}))")
        };
        let length = output.len();
        let data = output.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!(
            r#"(component
  {imports}
  (core module $memory
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $mem (instantiate $memory))
  {lowers}
  (core module $main
    (import "mem" "memory" (memory 2))
    {core_imports}
    (data (i32.const 1024) "{data}")
    (func $recurse (export "recurse") (param i32) (result i32)
      (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
    ;; Frees what was returned, as real compilers' components do: here by overwriting it.
    (func (export "free") (param i32)
      (memory.fill (i32.load (i32.const 4)) (i32.const 0x21) (i32.load (i32.const 8))))
    (func (export "run") (param $ptr i32) (param $len i32) (result i32) {locals}
      (i32.store (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (i32.const 1024))
      (i32.store (i32.const 8) (i32.const {length}))
      {body}
      (i32.const 0)))
  (core instance $i (instantiate $main (with "mem" (instance $mem)) {host}))
  (func (export "run") (param "input" string) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc")) (post-return (core func $i "free")))))"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

pub fn constant(output: &str) -> Vec<u8> {
    Text {
        output,
        ..Text::default()
    }
    .build()
}

/// Returns so many spaces.
pub fn long(bytes: u32) -> Vec<u8> {
    let pages = bytes.div_ceil(1 << 16);
    Text {
        body: &format!(
            "(drop (memory.grow (i32.const {pages})))
             (i32.store (i32.const 4) (i32.const 131072))
             (i32.store (i32.const 8) (i32.const {bytes}))
             (memory.fill (i32.const 131072) (i32.const 0x20) (i32.const {bytes}))"
        ),
        ..Text::default()
    }
    .build()
}

/// Returns its input.
pub fn echo() -> Vec<u8> {
    Text {
        body: "(i32.store (i32.const 4) (local.get $ptr)) (i32.store (i32.const 8) (local.get $len))",
        ..Text::default()
    }
    .build()
}

/// Returns `err(output)`.
pub fn failing(message: &str) -> Vec<u8> {
    Text {
        body: "(i32.store8 (i32.const 0) (i32.const 1))",
        output: message,
        ..Text::default()
    }
    .build()
}

pub fn endless() -> Vec<u8> {
    Text {
        body: "(loop $again (br $again))",
        ..Text::default()
    }
    .build()
}

/// Grows its memory until that fails.
pub fn memory_bomb() -> Vec<u8> {
    Text {
        body: "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))",
        ..Text::default()
    }
    .build()
}

pub fn deep_recursion() -> Vec<u8> {
    Text {
        body: "(drop (call $recurse (i32.const 0)))",
        ..Text::default()
    }
    .build()
}

pub fn trap() -> Vec<u8> {
    Text {
        body: "(unreachable)",
        ..Text::default()
    }
    .build()
}

const HTTP: &str = r#"(import "newton:provider/http@0.2.0" (instance $http
    (type $headers (list (tuple string string)))
    (type $body (option (list u8)))
    (type $rq (record (field "url" string) (field "method" string) (field "headers" $headers) (field "body" $body)))
    (export "http-request" (type $request (eq $rq)))
    (type $rs (record (field "status" u16) (field "headers" $headers) (field "body" (list u8))))
    (export "http-response" (type $response (eq $rs)))
    (export "fetch" (func (param "request" $request) (result (result $response (error string)))))))"#;

/// Sends `GET https://a.example/` `times` times, then returns the last response's body. 0.1.0 of the interface when `old`.
pub fn fetching(times: u32, old: bool) -> Vec<u8> {
    let imports = if old {
        HTTP.replace("0.2.0", "0.1.0")
    } else {
        HTTP.to_owned()
    };
    // Layout of the result at 2048: tag, then status u16 at 4, headers at 8, body pointer at 16 and length at 20.
    let body = format!(
        r#"(i32.store (i32.const 600) (i32.const {times}))
      (loop $again
        (call $fetch (i32.const 1040) (i32.const 18) (i32.const 1060) (i32.const 3)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048))
        (i32.store (i32.const 600) (i32.sub (i32.load (i32.const 600)) (i32.const 1)))
        (br_if $again (i32.load (i32.const 600))))
      (if (i32.eqz (i32.load8_u (i32.const 2048)))
        (then
          (i32.store (i32.const 4) (i32.load (i32.const 2064)))
          (i32.store (i32.const 8) (i32.load (i32.const 2068))))
        (else
          (i32.store8 (i32.const 0) (i32.const 1))
          (i32.store (i32.const 4) (i32.load (i32.const 2052)))
          (i32.store (i32.const 8) (i32.load (i32.const 2056)))))"#
    );
    Text {
        imports: &imports,
        lowered: &[(
            "fetch",
            "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
            "$http \"fetch\"",
        )],
        body: &body,
        // 16 bytes of padding put the URL at 1040 and the method at 1060.
        output: "0123456789abcdefhttps://a.example/  GET",
        ..Text::default()
    }
    .build()
}

/// Returns `{"n":"<16 hex digits of the u64 that `function` of `interface` gives>"}`.
pub fn word_of(interface: &str, function: &str) -> Vec<u8> {
    let imports = format!(
        r#"(import "{interface}" (instance $w (export "{function}" (func (result u64)))))"#
    );
    let lowering = format!("$w \"{function}\"");
    Text {
        imports: &imports,
        lowered: &[("word", "(result i64)", &lowering)],
        locals: "(local $n i64) (local $at i32) (local $digit i32)",
        body: r"(local.set $n (call $word))
      (local.set $at (i32.const 1045))
      (loop $again
        (local.set $digit (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 15)))
        (i32.store8 (local.get $at) (i32.add (local.get $digit)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
        (local.set $n (i64.shr_u (local.get $n) (i64.const 4)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br_if $again (i32.ge_u (local.get $at) (i32.const 1030))))",
        output: r#"{"n":"----------------"}"#,
    }
    .build()
}

/// Links WASI's sockets and calls one of their functions.
pub fn socket() -> Vec<u8> {
    Text {
        imports: r#"(import "wasi:sockets/network@0.2.9" (instance $network (export "network" (type (sub resource)))))
  (alias export $network "network" (type $network-type))
  (import "wasi:sockets/instance-network@0.2.9" (instance $sockets
    (alias outer 1 $network-type (type $outer))
    (export "network" (type $net (eq $outer)))
    (export "instance-network" (func (result (own $net))))))"#,
        lowered: &[("open", "(result i32)", "$sockets \"instance-network\"")],
        body: "(drop (call $open))",
        ..Text::default()
    }
    .build()
}

/// Returns what `secrets.get` answers: the document as `ok`, its error as `err`.
pub fn telling_secrets() -> Vec<u8> {
    Text {
        imports: r#"(import "newton:provider/secrets@0.2.0" (instance $secrets
    (type $rs (record (field "value" (list u8))))
    (export "secret-response" (type $response (eq $rs)))
    (export "get" (func (result (result $response (error string)))))))"#,
        lowered: &[("get", "(param i32)", "$secrets \"get\"")],
        // The layouts of both results agree: a tag, a pointer, a length.
        body: "(call $get (i32.const 0))",
        ..Text::default()
    }
    .build()
}

/// Returns `{"n":"<16 hex digits of the wall clock's seconds>"}`.
pub fn wall_clock() -> Vec<u8> {
    Text {
        imports: r#"(import "wasi:clocks/wall-clock@0.2.9" (instance $clock
    (type $dt (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $dt)))
    (export "now" (func (result $datetime)))))"#,
        lowered: &[("now", "(param i32)", "$clock \"now\"")],
        locals: "(local $n i64) (local $at i32) (local $digit i32)",
        body: r"(call $now (i32.const 64))
      (if (i32.load (i32.const 72)) (then (unreachable)))
      (local.set $n (i64.load (i32.const 64)))
      (local.set $at (i32.const 1045))
      (loop $again
        (local.set $digit (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 15)))
        (i32.store8 (local.get $at) (i32.add (local.get $digit)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
        (local.set $n (i64.shr_u (local.get $n) (i64.const 4)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br_if $again (i32.ge_u (local.get $at) (i32.const 1030))))",
        output: r#"{"n":"----------------"}"#,
    }
    .build()
}

/// Links an interface with one function of no arguments, and calls it when `called`.
pub fn touching(interface: &str, function: &str, called: bool) -> Vec<u8> {
    let imports = format!(r#"(import "{interface}" (instance $w (export "{function}" (func))))"#);
    let lowering = format!("$w \"{function}\"");
    Text {
        imports: &imports,
        lowered: &[("touch", "", &lowering)],
        body: if called { "(call $touch)" } else { "" },
        ..Text::default()
    }
    .build()
}

/// `component`, with an interface exported beside `run`.
pub fn exporting_more(component: &str) -> Vec<u8> {
    let more = r#"(component $tools (core module $m (func (export "f"))) (core instance $i (instantiate $m))
    (func (export "f") (canon lift (core func $i "f"))))
  (instance $extra (instantiate $tools))
  (export "some:other/thing@1.0.0" (instance $extra))
  (export "also" (instance $extra))"#;
    wat::parse_str(format!("(component {more} {component})"))
        .unwrap_or_else(|error| panic!("{error}"))
}
