// One event stream for the whole page: a browser keeps only six connections to a host, and pictures need them.

/** Follow the service's events. Return {on(name, call)}; `call(data)` may also be told "connected" and "disconnected". */
export function createEventBus(store, api) {
  const calls = new Map();
  const tell = (name, data) => { for (const call of calls.get(name) ?? []) call(data); };
  api.events(
    ({ event, data }) => tell(event, data),
    (connected) => {
      store.set({ connected });
      tell(connected ? "connected" : "disconnected", null);
    },
  );
  return {
    on(name, call) {
      if (!calls.has(name)) calls.set(name, new Set());
      calls.get(name).add(call);
      return () => calls.get(name).delete(call);
    },
  };
}
