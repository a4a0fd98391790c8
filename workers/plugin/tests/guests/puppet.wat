;; A worker that does what it is told by the first byte of each message. What it says of itself stands at 1024: see `support`.
(module
  (import "portolan:worker/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "portolan:worker/host@0.1.0" "random-bytes" (func $random (param i32 i32)))
  (import "portolan:worker/node@0.1.0" "own-address" (func $own_address (param i32)))
  (import "portolan:worker/node@0.1.0" "send" (func $send (param i32 i32 i32 i32 i32)))
  (import "portolan:worker/node@0.1.0" "forward" (func $forward (param i32 i32 i32 i32 i32 i32 i32)))
  (import "portolan:worker/node@0.1.0" "pass-on" (func $pass_on (param i32 i32 i32 i32 i32)))
  (import "portolan:worker/node@0.1.0" "peer-attributes" (func $peer_attributes (param i32)))
  (import "portolan:worker/timers@0.1.0" "set" (func $timer (param i32 i32 i32)))
  (import "portolan:worker/timers@0.1.0" "cancel" (func $cancel (param i32)))
  (import "portolan:worker/storage@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "portolan:worker/storage@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "portolan:worker/storage@0.1.0" "remove" (func $remove (param i32 i32 i32)))

  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (global $back (mut i32) (i32.const 0))
  (global $hops (mut i32) (i32.const 0))
  (global $count (mut i32) (i32.const 0))
  (global $config (mut i32) (i32.const 0))

  ;; 2048: the result "ok". 2064: the result "err" with a text. 3072: results of the host. 4096: a route of one hop.
  (data (i32.const 2048) "\00")
  (data (i32.const 2064) "\01\00\00\00\50\08\00\00\0c\00\00\00")
  (data (i32.const 2128) "I do not wish")
  (data (i32.const 2160) "ticks")
  (data (i32.const 2176) "tick")
  (data (i32.const 2192) "ok")
  (data (i32.const 2208) "one of many lines")
  (data (i32.const 2240) "stopped")

  (func $realloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (i32.const -1)
              (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const 65536)))))
          (then unreachable))))
    (global.set $heap (local.get $end))
    (local.get $at))

  (func (export "portolan:worker/handler@0.1.0#describe") (result i32) (i32.const 1024))

  (func (export "portolan:worker/handler@0.1.0#start") (param $at i32) (param $len i32) (result i32)
    (local $first i32)
    (memory.copy (i32.const 8192) (local.get $at) (local.get $len))
    (global.set $config (local.get $len))
    (if (local.get $len)
      (then (local.set $first (i32.load8_u (local.get $at)))))
    (if (i32.eq (local.get $first) (i32.const 0x72)) (then (return (i32.const 2064)))) ;; r: rejected
    (if (i32.eq (local.get $first) (i32.const 0x74)) (then unreachable))               ;; t: trap
    (if (i32.eq (local.get $first) (i32.const 0x6c)) (then (loop $for_ever (br $for_ever)))) ;; l: loop
    (i32.const 2048))

  (func $reply (param $at i32) (param $len i32)
    (call $send (global.get $back) (global.get $hops) (local.get $at) (local.get $len) (i32.const 3200)))

  ;; The outcome of something at 3072: "ok", or the text of the error, of which `$text` is where it stands.
  (func $report (param $text i32)
    (if (i32.load8_u (i32.const 3072))
      (then (call $reply (i32.load (local.get $text)) (i32.load (i32.add (local.get $text) (i32.const 4)))))
      (else (call $reply (i32.const 2192) (i32.const 2)))))

  (func (export "portolan:worker/handler@0.1.0#handle")
    (param $onward i32) (param $onward_hops i32) (param $back i32) (param $hops i32)
    (param $body i32) (param $len i32) (param $has_peer i32) (param $peer i32) (param $peer_len i32) (result i32)
    (local $do i32) (local $rest i32) (local $rest_len i32) (local $i i32)
    (global.set $back (local.get $back))
    (global.set $hops (local.get $hops))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (if (local.get $len)
      (then
        (local.set $do (i32.load8_u (local.get $body)))
        (local.set $rest (i32.add (local.get $body) (i32.const 1)))
        (local.set $rest_len (i32.sub (local.get $len) (i32.const 1)))))
    ;; e: echo
    (if (i32.eq (local.get $do) (i32.const 0x65)) (then (call $reply (local.get $body) (local.get $len))))
    ;; l: loop
    (if (i32.eq (local.get $do) (i32.const 0x6c)) (then (loop $for_ever (br $for_ever))))
    ;; t: trap
    (if (i32.eq (local.get $do) (i32.const 0x74)) (then unreachable))
    ;; x: an error
    (if (i32.eq (local.get $do) (i32.const 0x78)) (then (return (i32.const 2064))))
    ;; m: as much memory as there can be, and a trap as an allocator does it
    (if (i32.eq (local.get $do) (i32.const 0x6d))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.const 65534))) (then unreachable))))
    ;; f: a flood of 1000 log lines
    (if (i32.eq (local.get $do) (i32.const 0x66))
      (then
        (loop $flood
          (call $log (i32.const 2) (i32.const 2208) (i32.const 17))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $flood (i32.lt_u (local.get $i) (i32.const 1000))))
        (call $reply (local.get $body) (local.get $len))))
    ;; s: send to the address that follows, and say how that went
    (if (i32.eq (local.get $do) (i32.const 0x73))
      (then
        (i32.store (i32.const 4096) (local.get $rest))
        (i32.store (i32.const 4100) (local.get $rest_len))
        (call $send (i32.const 4096) (i32.const 1) (local.get $body) (local.get $len) (i32.const 3072))
        (call $report (i32.const 3080))))
    ;; b: a burst of 2000 messages to the address that follows; without an answer
    (if (i32.eq (local.get $do) (i32.const 0x62))
      (then
        (i32.store (i32.const 4096) (local.get $rest))
        (i32.store (i32.const 4100) (local.get $rest_len))
        (loop $burst
          (call $send (i32.const 4096) (i32.const 1) (i32.const 2192) (i32.const 2) (i32.const 3072))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $burst (i32.lt_u (local.get $i) (i32.const 2000))))))
    ;; B: 64 messages of a megabyte to the address that follows; without an answer
    (if (i32.eq (local.get $do) (i32.const 0x42))
      (then
        (drop (memory.grow (i32.const 16)))
        (i32.store (i32.const 4096) (local.get $rest))
        (i32.store (i32.const 4100) (local.get $rest_len))
        (loop $large
          (call $send (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 1048576) (i32.const 3072))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $large (i32.lt_u (local.get $i) (i32.const 64))))))
    ;; z: timers that are due again at once, for ever
    (if (i32.eq (local.get $do) (i32.const 0x7a))
      (then
        (call $timer (i32.const 99) (i32.const 0) (i32.const 3072))
        (call $report (i32.const 3076))))
    ;; p: pass on, twice, and say how the second went
    (if (i32.eq (local.get $do) (i32.const 0x70))
      (then
        (call $pass_on (local.get $onward) (local.get $onward_hops) (local.get $back) (local.get $hops) (i32.const 3072))
        (call $pass_on (local.get $onward) (local.get $onward_hops) (local.get $back) (local.get $hops) (i32.const 3072))
        (call $report (i32.const 3080))))
    ;; q: forward the rest of the body along the onward route
    (if (i32.eq (local.get $do) (i32.const 0x71))
      (then
        (call $forward (local.get $onward) (local.get $onward_hops) (local.get $back) (local.get $hops)
          (local.get $rest) (local.get $rest_len) (i32.const 3072))))
    ;; w: as many timers of an hour as the next byte says
    (if (i32.eq (local.get $do) (i32.const 0x77))
      (then
        (loop $timers
          (call $timer (local.get $i) (i32.const 3600000) (i32.const 3072))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $timers (i32.lt_u (local.get $i) (i32.load8_u (local.get $rest)))))
        (call $report (i32.const 3076))))
    ;; W: a timer at once, and one that is cancelled
    (if (i32.eq (local.get $do) (i32.const 0x57))
      (then
        (call $timer (i32.const 8) (i32.const 0) (i32.const 3072))
        (call $timer (i32.const 7) (i32.const 1) (i32.const 3072))
        (call $cancel (i32.const 8))))
    ;; S: store the rest under the key "k". G: get it. R: remove it
    (if (i32.eq (local.get $do) (i32.const 0x53))
      (then
        (call $set (i32.const 2195) (i32.const 1) (local.get $rest) (local.get $rest_len) (i32.const 3072))
        (call $report (i32.const 3076))))
    (if (i32.eq (local.get $do) (i32.const 0x47))
      (then
        (call $get (i32.const 2195) (i32.const 1) (i32.const 3072))
        (if (i32.or (i32.load8_u (i32.const 3072)) (i32.load8_u (i32.const 3076)))
          (then (call $reply (i32.load (i32.add (i32.const 3080) (i32.const 0))) (i32.load (i32.const 3084))))
          (else (call $reply (i32.const 0) (i32.const 0))))))
    (if (i32.eq (local.get $do) (i32.const 0x52))
      (then
        (call $remove (i32.const 2195) (i32.const 1) (i32.const 3072))
        (call $report (i32.const 3076))))
    ;; c: the configuration
    (if (i32.eq (local.get $do) (i32.const 0x63)) (then (call $reply (i32.const 8192) (global.get $config))))
    ;; a: the own address
    (if (i32.eq (local.get $do) (i32.const 0x61))
      (then
        (call $own_address (i32.const 3072))
        (call $reply (i32.load (i32.const 3072)) (i32.load (i32.const 3076)))))
    ;; n: how many messages this instance has got
    (if (i32.eq (local.get $do) (i32.const 0x6e))
      (then
        (i32.store (i32.const 3072) (global.get $count))
        (call $reply (i32.const 3072) (i32.const 4))))
    ;; P: the peer
    (if (i32.eq (local.get $do) (i32.const 0x50))
      (then (call $reply (local.get $peer) (select (local.get $peer_len) (i32.const 0) (local.get $has_peer)))))
    ;; A: the value of the peer's first attribute
    (if (i32.eq (local.get $do) (i32.const 0x41))
      (then
        (call $peer_attributes (i32.const 3072))
        (if (i32.load (i32.const 3076))
          (then
            (local.set $i (i32.load (i32.const 3072)))
            (call $reply (i32.load (i32.add (local.get $i) (i32.const 8))) (i32.load (i32.add (local.get $i) (i32.const 12)))))
          (else (call $reply (i32.const 0) (i32.const 0))))))
    ;; r: more random bytes than there may be
    (if (i32.eq (local.get $do) (i32.const 0x72)) (then (call $random (i32.const 70000) (i32.const 3072))))
    (i32.const 2048))

  (func (export "portolan:worker/handler@0.1.0#on-timer") (param $token i32) (result i32)
    (if (i32.eq (local.get $token) (i32.const 99))
      (then
        (call $timer (i32.const 99) (i32.const 0) (i32.const 3072))
        (return (i32.const 2048))))
    (if (i32.eq (local.get $token) (i32.const 7))
      (then
        (i32.store (i32.const 4096) (i32.const 2160))
        (i32.store (i32.const 4100) (i32.const 5))
        (call $send (i32.const 4096) (i32.const 1) (i32.const 2176) (i32.const 4) (i32.const 3072)))
      (else unreachable))
    (i32.const 2048))

  (func (export "portolan:worker/handler@0.1.0#stop")
    (i32.store (i32.const 4096) (i32.const 2160))
    (i32.store (i32.const 4100) (i32.const 5))
    (call $send (i32.const 4096) (i32.const 1) (i32.const 2240) (i32.const 7) (i32.const 3072)))

  (func $reset (global.set $heap (i32.const 65536)))
  (func (export "cabi_post_portolan:worker/handler@0.1.0#describe") (param i32) (call $reset))
  (func (export "cabi_post_portolan:worker/handler@0.1.0#start") (param i32) (call $reset))
  (func (export "cabi_post_portolan:worker/handler@0.1.0#handle") (param i32) (call $reset))
  (func (export "cabi_post_portolan:worker/handler@0.1.0#on-timer") (param i32) (call $reset))
)
