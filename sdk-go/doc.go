// Package synego makes a program a service of a Synego mesh: it attaches to the sidecar beside it, serves HTTP and gRPC
// handlers, calls other services by their names, and drains before it ends.
//
// The path of a request: the sidecar connects to the listener of the [Service]; the request's id, trace, deadline and
// priority go from its headers into the [context.Context] of the handler; a call that the handler makes with that
// context carries them on, through the sidecar's outbound. What the sidecar must know besides (state, load, handlers)
// goes over a link of its own, so that no request fails when the link breaks.
//
// Deliberately absent: balancing, retries, TLS and ejection are the sidecar's; metrics, servers, stubs and drivers are
// the program's own. Without a sidecar the same program serves alone.
package synego
