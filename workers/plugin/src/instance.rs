//! One instance of a plugin, and calls into it that end in time.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{ComponentType, Instance, Lift, Lower, TypedFunc};

use crate::component::Kind;
use crate::engine::{Clock, MAX_HANDED_OVER, Room, Ticking};
use crate::error::reason_of;
use crate::host::Host;
use crate::plugin::Exports;
use crate::{Plugin, PluginError};

/// `message` of the interface, on its way into an instance.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Message<'a> {
    #[component(name = "onward-route")]
    pub(crate) onward: &'a [String],
    #[component(name = "return-route")]
    pub(crate) back: &'a [String],
    pub(crate) body: &'a [u8],
    pub(crate) peer: Option<&'a str>,
}

/// `connection` of the interface.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Connection<'a> {
    pub(crate) side: Side,
    pub(crate) portal: &'a str,
    pub(crate) peer: Option<&'a str>,
    pub(crate) attributes: &'a [(String, String)],
    pub(crate) endpoint: Option<&'a str>,
}

/// Which end of a portal an interceptor stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Side {
    /// Where the client connects.
    #[component(name = "inlet")]
    Inlet,
    /// Where the service is.
    #[component(name = "outlet")]
    Outlet,
}

/// Where bytes of a portal connection go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the service.
    #[component(name = "to-service")]
    ToService,
    /// From the service to the client.
    #[component(name = "to-client")]
    ToClient,
}

/// What happens to bytes of a portal connection.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub enum Verdict {
    /// They go on as they are.
    #[component(name = "pass")]
    Pass,
    /// These go on instead.
    #[component(name = "replace")]
    Replace(Vec<u8>),
    /// The connection is ended, with a reason.
    #[component(name = "end")]
    End(String),
}

/// What most functions of a plugin return.
pub(crate) type Answer = (Result<(), String>,);

/// The functions of a worker.
#[derive(Clone, Copy)]
pub(crate) struct WorkerFunctions {
    pub(crate) start: TypedFunc<(&'static str,), Answer>,
    pub(crate) handle: TypedFunc<(Message<'static>,), Answer>,
    pub(crate) on_timer: TypedFunc<(u32,), Answer>,
    pub(crate) stop: TypedFunc<(), ()>,
}

/// The functions of an interceptor.
#[derive(Clone, Copy)]
pub(crate) struct InterceptorFunctions {
    pub(crate) open: TypedFunc<(&'static str, Connection<'static>), Answer>,
    pub(crate) data: TypedFunc<(Direction, &'static [u8]), (Verdict,)>,
    pub(crate) end: TypedFunc<(Direction,), (Vec<u8>,)>,
    pub(crate) close: TypedFunc<(), ()>,
}

impl WorkerFunctions {
    pub(crate) fn find(
        instance: &Instance,
        store: &mut Store<Host>,
        exports: &Exports,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            start: instance.get_typed_func(&mut *store, exports.begin)?,
            handle: instance.get_typed_func(&mut *store, exports.take)?,
            on_timer: instance.get_typed_func(&mut *store, exports.third)?,
            stop: instance.get_typed_func(&mut *store, exports.finish)?,
        })
    }
}

impl InterceptorFunctions {
    pub(crate) fn find(
        instance: &Instance,
        store: &mut Store<Host>,
        exports: &Exports,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            open: instance.get_typed_func(&mut *store, exports.begin)?,
            data: instance.get_typed_func(&mut *store, exports.take)?,
            end: instance.get_typed_func(&mut *store, exports.third)?,
            close: instance.get_typed_func(&mut *store, exports.finish)?,
        })
    }
}

/// Whether the functions of an instance are what the interface says.
pub(crate) fn check(
    kind: Kind,
    instance: &Instance,
    store: &mut Store<Host>,
    exports: &Exports,
) -> wasmtime::Result<()> {
    match kind {
        Kind::Worker => WorkerFunctions::find(instance, store, exports).map(drop),
        Kind::Interceptor => InterceptorFunctions::find(instance, store, exports).map(drop),
    }
}

/// A running instance with the functions `F`.
pub(crate) struct Running<F> {
    pub(crate) store: Store<Host>,
    pub(crate) functions: F,
    clock: Arc<Clock>,
    ticking: Option<Ticking>,
    // After the store, so that it is given back when that is gone.
    _room: Room,
}

/// How to find the functions of an instance.
type Find<F> = fn(&Instance, &mut Store<Host>, &Exports) -> wasmtime::Result<F>;

impl<F> Running<F> {
    /// Makes an instance, within `time`. `meanwhile` is called whenever it gives way.
    pub(crate) async fn new(
        plugin: &Plugin,
        host: Host,
        find: Find<F>,
        time: Duration,
        meanwhile: impl FnMut(&mut std::task::Context<'_>, Duration) -> bool,
    ) -> Result<Self, PluginError> {
        let engine = plugin.engine();
        let room = plugin.room()?;
        let mut store = Store::new(engine.wasmtime(), host);
        store.limiter(|host| &mut host.meter);
        store.set_hostcall_fuel(MAX_HANDED_OVER);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_epoch_deadline(1);
        let clock = Arc::clone(engine.clock());
        let ticking = clock.ticking();
        let made = within(time, meanwhile, plugin.pre().instantiate_async(&mut store)).await;
        let instance = made.map_err(|broken| broken.explain("instantiate", &mut store))?;
        let functions = find(&instance, &mut store, plugin.exports())
            .map_err(|error| PluginError::Interface(reason_of(&error)))?;
        Ok(Self {
            store,
            functions,
            clock,
            ticking: Some(ticking),
            _room: room,
        })
    }

    /// Nothing will be called for a while.
    pub(crate) fn rest(&mut self) {
        self.ticking = None;
    }

    /// Calls a function of the instance within `time`. After an error the instance must not be used any more.
    pub(crate) async fn call<P, R>(
        &mut self,
        name: &'static str,
        function: TypedFunc<P, R>,
        params: P,
        time: Duration,
        meanwhile: impl FnMut(&mut std::task::Context<'_>, Duration) -> bool,
    ) -> Result<R, PluginError>
    where
        P: wasmtime::component::ComponentNamedList + Lower + Send + Sync,
        R: wasmtime::component::ComponentNamedList + Lift + Send + Sync + 'static,
    {
        self.ticking.get_or_insert_with(|| self.clock.ticking());
        self.store.set_epoch_deadline(1);
        let called = within(time, meanwhile, function.call_async(&mut self.store, params)).await;
        called.map_err(|broken| broken.explain(name, &mut self.store))
    }
}

/// Why a call did not return.
pub(crate) enum Broken {
    Trap(wasmtime::Error),
    TooLong(Duration),
    Stopped,
}

impl Broken {
    fn explain(self, function: &'static str, store: &mut Store<Host>) -> PluginError {
        let reason = match self {
            Self::Trap(error) => match store.data_mut().meter.refused.take() {
                Some(refused) => format!("{}; {refused}", reason_of(&error)),
                None => reason_of(&error),
            },
            Self::TooLong(time) => format!("it computed for longer than {}", seconds(time)),
            Self::Stopped => "it was stopped in the middle of it".into(),
        };
        PluginError::Failed { function, reason }
    }
}

/// A duration as people write it.
pub(crate) fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// Runs a call until it returns or has computed for longer than `time`. Whenever it gives way, `meanwhile` is told for how long it
/// has computed, and says whether it may go on.
pub(crate) async fn within<T>(
    time: Duration,
    mut meanwhile: impl FnMut(&mut std::task::Context<'_>, Duration) -> bool,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Broken> {
    let mut call = pin!(call);
    let mut computed = Duration::ZERO;
    poll_fn(move |cx| {
        let begin = Instant::now();
        if let Poll::Ready(result) = call.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(Broken::Trap));
        }
        computed += begin.elapsed();
        if computed > time {
            return Poll::Ready(Err(Broken::TooLong(time)));
        }
        if meanwhile(cx, computed) {
            Poll::Pending
        } else {
            Poll::Ready(Err(Broken::Stopped))
        }
    })
    .await
}
