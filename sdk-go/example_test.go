package synego_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	synego "github.com/lostabaddon/synegobase/sdk-go"
)

// The smallest service: it listens, attaches to its sidecar, is ready, serves and drains.
func Example() {
	type User struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	users := synego.NewService("users")
	synego.Handle(users, "GET /users/{id}", func(ctx context.Context, in struct {
		ID int64 `path:"id"`
	}) (User, error) {
		if in.ID != 1 {
			return User{}, synego.Errorf(synego.NotFound, "no user %d", in.ID)
		}
		return User{ID: 1, Name: "Ada"}, nil
	})
	if err := users.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// newUser is the body of a request; Validate is asked after it was read.
type newUser struct {
	Name string `json:"name"`
}

func (u newUser) Validate() error {
	if u.Name == "" {
		return errors.New("name: missing")
	}
	return nil
}

// A typed body, an own status and an own error.
func ExampleHandle() {
	users := synego.NewService("users")
	taken := map[string]bool{"Ada": true}
	synego.Handle(users, "POST /users", func(ctx context.Context, in newUser) (newUser, error) {
		if taken[in.Name] {
			return newUser{}, synego.Errorf(synego.AlreadyExists, "name in use").WithReason("name_taken") // 409
		}
		slog.InfoContext(ctx, "user created", "name", in.Name)
		return in, nil
	}, synego.WithStatus(http.StatusCreated))
}

// An existing server becomes a service in one line: any http.Handler, and a gRPC server beside it.
func ExampleServe() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	server := grpc.NewServer(synego.ServerOptions()...)

	if err := synego.Serve(context.Background(), mux, synego.WithGRPC(server)); err != nil {
		log.Fatal(err)
	}
}

// Calls by name: the host of the URL is the service, and the context carries id, trace and deadline on.
func ExampleClient_HTTP() {
	orders := synego.NewService("orders")
	synego.Handle(orders, "GET /greeting", func(ctx context.Context, _ synego.None) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/users/1", nil)
		if err != nil {
			return "", err
		}
		response, err := orders.Client().HTTP().Do(request)
		if err != nil {
			return "", err // an *Error: no_sidecar, sidecar_unreachable, deadline_exceeded
		}
		if err := synego.ErrorOf(response); err != nil {
			return "", err // an *Error with what the service, or the mesh, said
		}
		defer response.Body.Close()
		var user struct{ Name string }
		if err := json.NewDecoder(response.Body).Decode(&user); err != nil {
			return "", err
		}
		return "hello " + user.Name, nil
	})
}

// Calls over gRPC use the program's own stubs.
func ExampleClient_Conn() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, err := synego.Dial(ctx) // a program that serves nothing; a Service has its Client
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	stub := grpc_health_v1.NewHealthClient(client.Conn("orders"))
	_, err = stub.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	var e *synego.Error
	if errors.As(err, &e) && e.Retry == synego.RetryLater {
		log.Printf("%s is not there now: %s", e.Service, e.Message)
	}
}

// A call by name needs neither path nor stub.
func ExampleCall() {
	type Quote struct{ SKU string }
	type Price struct{ Cents int }
	prices := synego.NewService("prices")
	synego.RPC(prices, "quote", func(ctx context.Context, in Quote) (Price, error) { return Price{Cents: 450}, nil })

	// elsewhere
	shop := synego.NewService("shop")
	synego.Handle(shop, "GET /price/{sku}", func(ctx context.Context, in struct {
		SKU string `path:"sku"`
	}) (Price, error) {
		return synego.Call[Price](ctx, shop.Client(), "prices", "quote", Quote{in.SKU}, synego.WithCallTimeout(200*time.Millisecond))
	})
}

// Health, load and hooks.
func ExampleService_Check() {
	orders := synego.NewService("orders")
	ledger := openLedger()
	orders.Check("ledger", ledger.Ping, synego.Required())
	orders.Load("queue", func() float64 { return float64(ledger.waiting) / 100 })
	orders.OnStart(ledger.Warm)
	orders.OnDrain(func(ctx context.Context, drain synego.Drain) error { return ledger.StopReading(ctx) })
	orders.OnStop(ledger.Close)
}

// A stream ends by itself when the instance drains.
func ExampleCtx_Draining() {
	feed := synego.NewService("feed")
	feed.Handle("GET /feed", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		known, _ := synego.FromContext(r.Context())
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				fmt.Fprintf(w, "data: %s\n\n", now.Format(time.RFC3339))
				if http.NewResponseController(w).Flush() != nil {
					return
				}
			case <-known.Draining():
				_, _ = io.WriteString(w, "retry: 1000\n\n")
				return
			case <-r.Context().Done():
				return
			}
		}
	}), synego.Streaming())
}

// ledger stands for what a service depends on.
type ledger struct{ waiting int }

func openLedger() *ledger                         { return &ledger{} }
func (*ledger) Ping(context.Context) error        { return nil }
func (*ledger) Warm(context.Context) error        { return nil }
func (*ledger) StopReading(context.Context) error { return nil }
func (*ledger) Close() error                      { return nil }
