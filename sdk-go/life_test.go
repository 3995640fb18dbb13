package synego_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/synegotest"
)

func TestServiceServesOnWhileItsLinkIsLostAndAttachesAgain(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	mesh.LoseLink("users")
	mesh.Await("users", func(state synegotest.State) bool { return !state.Attached })
	if response, _ := get(t, t.Context(), mesh.Client(), "http://users/users/1"); response.StatusCode != http.StatusOK {
		t.Errorf("answer %d without a link", response.StatusCode)
	}
	mesh.RestoreLink("users")
	mesh.Await("users", func(state synegotest.State) bool {
		return state.Attached && state.Attachments == 2 && state.Phase == "ready"
	})
}

func TestMovedServiceAttachesAtOnce(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	mesh.Move("users")
	mesh.Await("users", func(state synegotest.State) bool { return state.Attached && state.Attachments == 2 })
}

func TestRefusedServiceServesOnWithoutALink(t *testing.T) {
	users := usersService()
	mesh := synegotest.Start(t, users)
	mesh.Refuse("users", synego.AlreadyExists, "users-1 is taken")
	mesh.Move("users")
	for users.Client().Link().State != synego.LinkRefused {
		if t.Context().Err() != nil {
			t.Fatal("never refused")
		}
		time.Sleep(time.Millisecond)
	}
	if refusal := users.Client().Link().Refusal; refusal == nil || refusal.Code != synego.AlreadyExists {
		t.Errorf("refusal %v", refusal)
	}
}

func TestDrainFinishesWhatRunsAndRunsTheHooksInOrder(t *testing.T) {
	var mutex sync.Mutex
	var events []string
	event := func(name string) {
		mutex.Lock()
		defer mutex.Unlock()
		events = append(events, name)
	}
	started, release := make(chan struct{}), make(chan struct{})
	slow := synego.NewService("slow")
	slow.Handle("GET /", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		known, _ := synego.FromContext(r.Context())
		<-known.Draining()
		<-release
		event("answered")
	}))
	slow.OnStart(func(context.Context) error { event("start"); return nil })
	slow.OnDrain(func(_ context.Context, drain synego.Drain) error { event("drain " + string(drain.Cause)); return nil })
	slow.OnStop(func() error { event("stop"); return nil })
	mesh := synegotest.Start(t, slow)
	answered := make(chan int)
	go func() {
		response, err := mesh.Client().HTTP().Get("http://slow/")
		if err != nil {
			t.Error(err)
			close(answered)
			return
		}
		response.Body.Close()
		answered <- response.StatusCode
	}()
	<-started
	mesh.Drain("slow", synego.CauseReload)
	mesh.Await("slow", func(state synegotest.State) bool { return state.Phase == "draining" })
	close(release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request in flight was answered with %d", status)
	}
	if err := mesh.Ended("slow"); err != nil {
		t.Error(err)
	}
	mutex.Lock()
	defer mutex.Unlock()
	if got := strings.Join(events, ", "); got != "start, drain reload, answered, stop" {
		t.Errorf("events %s", got)
	}
	mesh.Await("slow", func(state synegotest.State) bool { return state.Phase == "drained" })
}

func TestStopDrainsToo(t *testing.T) {
	users := usersService()
	drained := make(chan synego.DrainCause, 1)
	users.OnDrain(func(_ context.Context, drain synego.Drain) error { drained <- drain.Cause; return nil })
	mesh := synegotest.Start(t, users)
	mesh.Stop("users")
	if err := mesh.Ended("users"); err != nil {
		t.Error(err)
	}
	if cause := <-drained; cause != synego.CauseStop {
		t.Errorf("cause %q", cause)
	}
	mesh.Await("users", func(state synegotest.State) bool { return state.Phase == "drained" })
}

func TestFailedStartEndsRun(t *testing.T) {
	broken := synego.NewService("broken", synego.Embedded(), synego.WithEnv(func(string) string { return "" }))
	broken.OnStart(func(context.Context) error { return errors.New("no warm water") })
	if err := broken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no warm water") {
		t.Errorf("error %v", err)
	}
}

func TestMistakesInTheDeclarationAreToldAllAtOnce(t *testing.T) {
	wrong := synego.NewService("Wrong", synego.WithCallTimeout(-1))
	wrong.Handle("GET users", http.NotFoundHandler())
	synego.Handle(wrong, "GET /users/{id}", func(context.Context, struct {
		Name string `path:"name"`
	}) (synego.None, error) {
		return synego.None{}, nil
	})
	wrong.Handle("GET /users/{name}", http.NotFoundHandler())
	err := wrong.Run(t.Context())
	for _, want := range []string{"Wrong", "call timeout", "GET users", "{name}", "same requests"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestRequiredCheckMakesTheServiceUnhealthyAndOthersDegraded(t *testing.T) {
	for name, c := range map[string]struct {
		options []synego.CheckOption
		want    string
	}{
		"required": {[]synego.CheckOption{synego.Required()}, "unhealthy"},
		"optional": {nil, "degraded"},
	} {
		t.Run(name, func(t *testing.T) {
			users := usersService()
			users.Check("ledger", func(context.Context) error { return errors.New("no ledger\xff") }, c.options...)
			mesh := synegotest.Start(t, users)
			state := mesh.Await("users", func(state synegotest.State) bool { return state.Phase == c.want })
			if state.Checks["ledger"] != "no ledger" {
				t.Errorf("checks %v", state.Checks)
			}
		})
	}
}

func TestLoadFiguresReachTheSidecar(t *testing.T) {
	users := usersService()
	users.Load("gpu", func() float64 { return 0.75 })
	users.Load("too much", func() float64 { return 7 })
	mesh := synegotest.Start(t, users)
	mesh.Await("users", func(state synegotest.State) bool {
		return state.Named["gpu"] == 0.75 && state.Named["too much"] == 1 && state.Utilization == 1
	})
}

func TestServerSentEventsEndWithTheDrain(t *testing.T) {
	feed := synego.NewService("feed")
	feed.Handle("GET /feed", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		known, _ := synego.FromContext(r.Context())
		<-known.Draining()
	}), synego.Streaming())
	mesh := synegotest.Start(t, feed)
	response, err := mesh.Client().HTTP().Get("http://feed/feed")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	mesh.Await("feed", func(state synegotest.State) bool { return state.OpenStreams == 1 })
	mesh.Stop("feed")
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "data: 1\n\n" {
		t.Errorf("events %q, error %v", text, err)
	}
}

func TestLogLevelIsPushedLive(t *testing.T) {
	users := usersService()
	mesh := synegotest.Start(t, users)
	if users.Log().Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is on at the start")
	}
	mesh.SetLogLevel("users", slog.LevelDebug)
	if !users.Log().Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is off after the push")
	}
}

func TestHealthIsAnsweredWithoutASidecar(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	alone := synego.NewService("alone", synego.WithHandler(mux), synego.Embedded(),
		synego.WithEnv(func(name string) string { return "" }), synego.WithAddress("127.0.0.1:0"))
	listening := make(chan string, 1)
	alone.OnStart(func(context.Context) error { listening <- alone.Addr(); return nil })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- alone.Run(ctx) }()
	base := "http://" + <-listening
	for path, want := range map[string]string{"/hello": "hello", "/livez": `"state":"`, "/readyz": `"state":"ready"`} {
		response, err := http.Get(base + path)
		for path == "/readyz" && err == nil && response.StatusCode == http.StatusServiceUnavailable { // the hook ends after it told
			response.Body.Close()
			response, err = http.Get(base + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
			t.Errorf("%s: %d %s %v", path, response.StatusCode, text, err)
		}
	}
	_, err := alone.Client().HTTP().Get("http://users/")
	var e *synego.Error
	if !errors.As(err, &e) || e.Reason != synego.ReasonNoSidecar {
		t.Errorf("a call by name gave %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRequiredSidecarThatIsMissingEndsRun(t *testing.T) {
	alone := synego.NewService("alone", synego.RequireSidecar(), synego.Embedded(), synego.WithEnv(func(string) string { return "" }))
	if err := alone.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "sidecar") {
		t.Errorf("error %v", err)
	}
}

func TestServeTakesTheNameFromTheEnvironment(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	ctx, stop := context.WithCancel(t.Context())
	wrapped := http.NewServeMux()
	wrapped.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { stop() })
	port := freePort(t)
	done := make(chan error)
	go func() {
		done <- synego.Serve(ctx, wrapped, synego.Embedded(), synego.WithEnv(func(name string) string {
			return map[string]string{"PORT": port, "SYNEGO_SERVICE": "wrapped", "SYNEGO_URL_USERS": mesh.Client().Link().Outbound}[name]
		}))
	}()
	for {
		response, err := http.Get("http://127.0.0.1:" + port + "/")
		if err == nil {
			response.Body.Close()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	err := synego.Serve(t.Context(), wrapped, synego.Embedded(), synego.WithEnv(func(name string) string {
		return map[string]string{"SYNEGO_SERVICE": "Not A Name"}[name]
	}))
	if err == nil || !strings.Contains(err.Error(), "Not A Name") {
		t.Errorf("error %v", err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestVariablesOfAMeshReachItsServices(t *testing.T) {
	users := usersService()
	mesh := synegotest.Start(t, users, synegotest.Env(map[string]string{"SYNEGO_INSTANCE": "users-7"}))
	mesh.Await("users", func(state synegotest.State) bool { return state.Instance == "users-7" })
	if users.Instance() != "users-1" { // what the sidecar answers goes before
		t.Errorf("instance %q", users.Instance())
	}
}
