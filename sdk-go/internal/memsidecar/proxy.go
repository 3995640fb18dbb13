package memsidecar

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// proxy is the outbound of one sidecar and the inbound of all others in one: Host or :authority picks the service.
type proxy struct {
	sidecar *Sidecar
	http1   *httputil.ReverseProxy
	http2   *httputil.ReverseProxy
}

type targetKey struct{}

func newProxy(s *Sidecar) *proxy {
	p := &proxy{sidecar: s}
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	p.http1 = p.reverse(&http.Transport{DisableCompression: true})
	p.http2 = p.reverse(&http.Transport{DisableCompression: true, Protocols: protocols})
	return p
}

func (p *proxy) reverse(transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ModifyResponse: splitTrailersOnly,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Context().Value(targetKey{}).(string)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			refuse(w, r, http.StatusBadGateway, 14, "connect_failed", err.Error())
		},
	}
}

// splitTrailersOnly turns an answer of trailers alone into a head and trailers: ReverseProxy flushes the head early,
// and a head that does not end the stream must not hold the status.
func splitTrailersOnly(response *http.Response) error {
	if response.Header.Get("Grpc-Status") == "" {
		return nil
	}
	response.Trailer = http.Header{}
	for name, values := range response.Header {
		if name != "Content-Type" && name != "Date" {
			response.Trailer[name] = values
			delete(response.Header, name)
		}
	}
	return nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, make := range map[string]func() string{
		"X-Request-Id": func() string { return "test-" + random(8) },
		"Traceparent":  func() string { return "00-" + random(16) + "-" + random(8) + "-01" },
	} {
		if r.Header.Get(name) == "" {
			r.Header.Set(name, make())
		}
	}
	r.Header.Set("X-Synego-Caller", "spiffe://test/svc/"+p.sidecar.service)
	isGRPC := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	mesh := p.sidecar.mesh
	mesh.mutex.Lock()
	stub, callee := mesh.stubs[r.Host], mesh.sidecars[r.Host]
	mesh.mutex.Unlock()
	switch {
	case stub != nil && isGRPC && stub.GRPC != "":
		p.pass(w, r, stub.GRPC, isGRPC)
	case stub != nil && !isGRPC && stub.HTTP != nil:
		stub.HTTP.ServeHTTP(w, r)
	case callee == nil:
		refuse(w, r, http.StatusNotFound, 5, "unknown_service", "no service "+r.Host)
	default:
		if target, reason := callee.target(isGRPC); reason == "" {
			p.pass(w, r, target, isGRPC)
		} else {
			refuse(w, r, http.StatusServiceUnavailable, 14, reason, "no ready endpoint for "+r.Host)
		}
	}
}

func (p *proxy) pass(w http.ResponseWriter, r *http.Request, target string, isGRPC bool) {
	r = r.WithContext(context.WithValue(r.Context(), targetKey{}, target))
	if isGRPC {
		p.http2.ServeHTTP(w, r)
	} else {
		p.http1.ServeHTTP(w, r)
	}
}

// target is the listener of the service that takes a request, or the reason why none does.
func (s *Sidecar) target(isGRPC bool) (address, reason string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	phase := s.seen.State.GetPhase()
	if s.draining {
		return "", "draining"
	}
	if phase != synegov1.Phase_PHASE_READY && phase != synegov1.Phase_PHASE_DEGRADED {
		return "", "no_ready_endpoint"
	}
	for _, listener := range s.seen.Hello.GetListeners() {
		if (listener.GetProtocol() == synegov1.Protocol_PROTOCOL_GRPC) == isGRPC {
			return listener.GetAddress(), ""
		}
	}
	return "", "no_ready_endpoint"
}

// refuse answers as the mesh does: in JSON, or trailers-only to a gRPC call.
func refuse(w http.ResponseWriter, r *http.Request, status, grpcStatus int, reason, message string) {
	w.Header().Set("X-Synego-Reason", reason)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", strconv.Itoa(grpcStatus))
		w.Header().Set("Grpc-Message", message)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the caller may be gone
		"code": status, "msg": message, "reason": reason, "request_id": r.Header.Get("X-Request-Id"),
	})
}

func random(n int) string {
	bytes := make([]byte, n)
	_, _ = rand.Read(bytes) // never fails: it ends the program instead
	return hex.EncodeToString(bytes)
}
