package synego_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/synegotest"
)

type user struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// usersService is the service that most tests call.
func usersService() *synego.Service {
	users := synego.NewService("users", synego.WithVersion("1.2.3"))
	synego.Handle(users, "GET /users/{id}", func(_ context.Context, in struct {
		ID int64 `path:"id"`
	}) (user, error) {
		if in.ID != 1 {
			return user{}, synego.Errorf(synego.NotFound, "no user %d", in.ID)
		}
		return user{ID: 1, Name: "Ada"}, nil
	})
	return users
}

func get(t *testing.T, ctx context.Context, client *synego.Client, url string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.HTTP().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func TestServiceIsCalledByItsName(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	response, text := get(t, t.Context(), mesh.Client(), "http://users/users/1")
	if response.StatusCode != http.StatusOK || text != `{"id":1,"name":"Ada"}`+"\n" {
		t.Errorf("answer %d %s", response.StatusCode, text)
	}
}

func TestServiceTellsItsSidecarWhatItIs(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	state := mesh.Await("users", func(state synegotest.State) bool { return state.Phase == "ready" })
	if state.Instance != "users-1" || state.Version != "1.2.3" || fmt.Sprint(state.Handlers) != "[GET /users/{id}]" {
		t.Errorf("state %+v", state)
	}
}

func TestFailedAnswerIsReadAsTheOneError(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/users/9", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := mesh.Client().HTTP().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var e *synego.Error
	if !errors.As(synego.ErrorOf(response), &e) {
		t.Fatal("no error")
	}
	if e.Code != synego.NotFound || e.Message != "no user 9" || e.Service != "users" || e.RequestID == "" || e.FromMesh {
		t.Errorf("error %+v", e)
	}
}

func TestAnswerOfTheMeshIsFromMesh(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nobody/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := mesh.Client().HTTP().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var e *synego.Error
	if !errors.As(synego.ErrorOf(response), &e) || e.Reason != "unknown_service" || !e.FromMesh {
		t.Errorf("error %+v", e)
	}
}

func TestContextTravelsFromTheRequestToTheCallsItCauses(t *testing.T) {
	var mutex sync.Mutex
	seen := map[string]http.Header{}
	note := func(name string, r *http.Request) {
		mutex.Lock()
		defer mutex.Unlock()
		seen[name] = r.Header.Clone()
	}
	front := synego.NewService("front")
	front.Handle("GET /", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("front", r)
		response, _ := get(t, r.Context(), front.Client(), "http://back/")
		w.WriteHeader(response.StatusCode)
	}))
	back := synego.NewService("back", synego.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		note("back", r)
	})))
	mesh := synegotest.Start(t, front, synegotest.With(back))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://front/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Request-Id", "r-1")
	request.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	request.Header.Set("Baggage", "tenant=a")
	request.Header.Set("X-Synego-Priority", "background")
	response, err := mesh.Client().HTTP().Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("answer %v %v", response, err)
	}
	response.Body.Close()
	mutex.Lock()
	defer mutex.Unlock()
	front1, back1 := seen["front"], seen["back"]
	for _, name := range []string{"X-Request-Id", "Baggage", "X-Synego-Priority"} {
		if back1.Get(name) == "" || back1.Get(name) != front1.Get(name) {
			t.Errorf("%s: %q came, %q went on", name, front1.Get(name), back1.Get(name))
		}
	}
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-"
	if !strings.HasPrefix(back1.Get("Traceparent"), trace) || back1.Get("Traceparent") == front1.Get("Traceparent") {
		t.Errorf("traceparent: %q came, %q went on", front1.Get("Traceparent"), back1.Get("Traceparent"))
	}
	if caller := back1.Get("X-Synego-Caller"); caller != "spiffe://test/svc/front" {
		t.Errorf("caller %q", caller)
	}
}

func TestDeadlineOnlyShrinksOnItsWay(t *testing.T) {
	var told atomic.Value
	gaveUp := make(chan struct{})
	slow := synego.NewService("slow")
	slow.Handle("GET /", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.Header.Get("X-Synego-Timeout"))
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("the handler has no deadline")
		}
		<-r.Context().Done()
		<-gaveUp // the handler's time is over some microseconds before its caller's
	}))
	mesh := synegotest.Start(t, slow)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://slow/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = mesh.Client().HTTP().Do(request)
	close(gaveUp)
	var e *synego.Error
	if !errors.As(err, &e) || e.Code != synego.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	var ms int
	if _, err := fmt.Sscan(fmt.Sprint(told.Load()), &ms); err != nil || ms < 1 || ms > 200 {
		t.Errorf("x-synego-timeout %v", told.Load())
	}
}

func TestBadInputIsRefusedWithEveryMistakeAtOnce(t *testing.T) {
	shop := synego.NewService("shop")
	synego.Handle(shop, "POST /orders/{id}", func(_ context.Context, in order) (order, error) { return in, nil }, synego.WithStatus(201))
	mesh := synegotest.Start(t, shop)
	for name, c := range map[string]struct {
		target, body string
		status       int
		want         string
		reason       string
	}{
		"good":           {"/orders/7?note=a&note=b", `{"sku":"tea","quantity":2}`, 201, `{"sku":"tea","quantity":2}`, ""},
		"bad path":       {"/orders/x", `{"sku":"tea","quantity":2}`, 400, `"reason":"invalid_path"`, ""},
		"three mistakes": {"/orders/x", `{"sku":7,"quantity":-1}`, 400, `path id: expected an integer of 64 bits, got \"x\"; sku: expected a string, got number; quantity: expected an integer ≥ 0 of 32 bits, got number -1`, "invalid_body"},
		"its own check":  {"/orders/7", `{"sku":"tea"}`, 400, `quantity: must be at least 1`, "invalid_body"},
		"no JSON":        {"/orders/7", `{"sku":`, 400, `body: not JSON at byte 7`, "invalid_body"},
		"no body":        {"/orders/7", ``, 400, `body: missing, expected JSON`, "invalid_body"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop"+c.target, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			response, err := mesh.Client().HTTP().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != c.status || !strings.Contains(string(text), c.want) {
				t.Errorf("answer %d %s", response.StatusCode, text)
			}
			if reason := response.Header.Get("X-Synego-Reason"); reason != c.reason {
				t.Errorf("x-synego-reason %q", reason)
			}
		})
	}
}

type order struct {
	ID       int64    `path:"id" json:"-"`
	Note     []string `query:"note" json:"-"`
	SKU      string   `json:"sku"`
	Quantity uint32   `json:"quantity"`
}

func (o order) Validate() error {
	if o.Quantity < 1 {
		return errors.New("quantity: must be at least 1")
	}
	return nil
}

func TestCauseOfAFailureIsNeverSent(t *testing.T) {
	leaky := synego.NewService("leaky")
	synego.Handle(leaky, "GET /error", func(context.Context, synego.None) (synego.None, error) {
		return synego.None{}, errors.New("dial postgres://admin:secret@db")
	})
	synego.Handle(leaky, "GET /panic", func(context.Context, synego.None) (synego.None, error) { panic("secret") })
	mesh := synegotest.Start(t, leaky)
	for _, path := range []string{"/error", "/panic"} {
		response, text := get(t, t.Context(), mesh.Client(), "http://leaky"+path)
		if response.StatusCode != 500 || strings.Contains(text, "secret") || !strings.Contains(text, `"msg":"internal error"`) {
			t.Errorf("%s: answer %d %s", path, response.StatusCode, text)
		}
	}
}

func TestCallByNameReachesServiceAndStub(t *testing.T) {
	type price struct{ Cents int }
	type question struct{ SKU string }
	prices := synego.NewService("prices")
	synego.RPC(prices, "quote", func(ctx context.Context, in question) (price, error) {
		if in.SKU == "gone" {
			return price{}, synego.Errorf(synego.FailedPrecondition, "no price for %s", in.SKU).WithReason("unknown_sku")
		}
		rate, err := synego.Call[price](ctx, prices.Client(), "rates", "today", synego.None{})
		return price{Cents: 100 + rate.Cents}, err
	})
	mesh := synegotest.Start(t, prices, synegotest.Stub("rates", "today", price{Cents: 7}))
	got, err := synego.Call[price](t.Context(), mesh.Client(), "prices", "quote", question{"tea"})
	if err != nil || got.Cents != 107 {
		t.Errorf("price %+v, error %v", got, err)
	}
	_, err = synego.Call[price](t.Context(), mesh.Client(), "prices", "quote", question{"gone"})
	var e *synego.Error
	if !errors.As(err, &e) || e.Code != synego.FailedPrecondition || e.Reason != "unknown_sku" || e.Service != "prices" {
		t.Errorf("error %+v", err)
	}
}

func TestNamesResolveByVariableWithoutASidecar(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	outbound := mesh.Client().Link().Outbound
	client, err := synego.Dial(t.Context(), synego.WithEnv(func(name string) string {
		return map[string]string{"SYNEGO_URL_USERS": outbound}[name]
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	response, text := get(t, t.Context(), client, "http://users/users/1")
	var got user
	if err := json.Unmarshal([]byte(text), &got); err != nil || response.StatusCode != 200 || got.Name != "Ada" {
		t.Errorf("answer %d %s", response.StatusCode, text)
	}
}

func TestUnreachableOutboundIsSaidSo(t *testing.T) {
	client, err := synego.Dial(t.Context(), synego.WithEnv(func(name string) string {
		return map[string]string{"SYNEGO_OUTBOUND": "http://127.0.0.1:1"}[name]
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.HTTP().Get("http://users/")
	var e *synego.Error
	if !errors.As(err, &e) || e.Reason != synego.ReasonSidecarUnreachable || e.Retry != synego.RetryLater {
		t.Errorf("error %v", err)
	}
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := synego.Dial(ctx, synego.WithEnv(func(name string) string {
		return map[string]string{"SYNEGO_SIDECAR": "unix:" + t.TempDir() + "/none.sock"}[name]
	}))
	var e *synego.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Reason != synego.ReasonSidecarUnreachable {
		t.Errorf("error %v", err)
	}
}

func TestLimitOfOneCallGoesBeforeThatOfTheClient(t *testing.T) {
	prices := synego.NewService("prices", synego.WithCallTimeout(50*time.Millisecond))
	answered := make(chan string, 1)
	synego.RPC(prices, "quote", func(ctx context.Context, _ synego.None) (synego.None, error) {
		_, err := synego.Call[synego.None](ctx, prices.Client(), "slow", "wait", synego.None{}, synego.WithCallTimeout(5*time.Second))
		return synego.None{}, err
	})
	slow := synegotest.StubHTTP("slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered <- r.Header.Get("X-Synego-Timeout")
		time.Sleep(100 * time.Millisecond) // longer than the client's limit, far shorter than the call's
		fmt.Fprint(w, "{}")
	}))
	mesh := synegotest.Start(t, prices, slow)
	if _, err := synego.Call[synego.None](t.Context(), mesh.Client(), "prices", "quote", synego.None{}); err != nil {
		t.Error(err)
	}
	if told := <-answered; len(told) != 4 {
		t.Errorf("x-synego-timeout %q, want a little below 5000", told)
	}
}

func TestHostThatIsNoServiceIsCalledDirectlyAndGetsNoContext(t *testing.T) {
	seen := make(chan http.Header, 1)
	outside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	defer outside.Close()
	mesh := synegotest.Start(t, usersService())
	if response, _ := get(t, t.Context(), mesh.Client(), outside.URL); response.StatusCode != http.StatusOK {
		t.Errorf("answer %d", response.StatusCode)
	}
	if header := <-seen; header.Get("Traceparent") != "" || header.Get("X-Synego-Timeout") != "" {
		t.Errorf("header %v", header)
	}
}

// freePort finds a port that was free a moment ago.
