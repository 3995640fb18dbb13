package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	shopv1 "github.com/lostabaddon/synegobase/examples/shop/orders/internal/gen/shop/v1"
	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/synegotest"
)

// inventory is the stock of a test.
type inventory struct {
	shopv1.UnimplementedInventoryServer
	mutex sync.Mutex
	left  map[string]uint32
}

func (i *inventory) Reserve(_ context.Context, in *shopv1.ReserveStock) (*shopv1.Stock, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	left, known := i.left[in.GetSku()]
	if !known {
		return nil, status.Error(codes.NotFound, "no such goods")
	}
	if left < in.GetQuantity() {
		return nil, status.Error(codes.FailedPrecondition, "too few")
	}
	i.left[in.GetSku()] -= in.GetQuantity()
	return &shopv1.Stock{Sku: in.GetSku(), Left: i.left[in.GetSku()], PriceCents: 450, Instance: "inventory-1"}, nil
}

func (i *inventory) Restock(stream grpc.ClientStreamingServer[shopv1.Delivery, shopv1.Restocked]) error {
	for {
		delivery, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&shopv1.Restocked{})
		}
		if err != nil {
			return err
		}
		i.mutex.Lock()
		i.left[delivery.GetSku()] += delivery.GetQuantity()
		i.mutex.Unlock()
	}
}

// start runs orders in a mesh with a user 1 and ten pieces of tea.
func start(t *testing.T) *synegotest.Mesh {
	t.Helper()
	t.Setenv("ORDERS_DATA", t.TempDir())
	users := http.NewServeMux()
	users.HandleFunc("GET /api/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.PathValue("id") != "1" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":404,"msg":"no user","reason":"not_found"}`)
			return
		}
		_, _ = io.WriteString(w, `{"id":1,"name":"Ada","instance":"users-1"}`)
	})
	return synegotest.Start(t, newService(),
		synegotest.StubHTTP("users", users),
		synegotest.StubGRPC("inventory", func(server grpc.ServiceRegistrar) {
			shopv1.RegisterInventoryServer(server, &inventory{left: map[string]uint32{"tea-green": 10}})
		}))
}

func post(t *testing.T, mesh *synegotest.Mesh, body string) (int, map[string]any) {
	t.Helper()
	response, err := mesh.Client().HTTP().Post("http://orders/api/orders", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

func TestOrderIsPlacedAndRead(t *testing.T) {
	mesh := start(t)
	code, placed := post(t, mesh, `{"user_id":1,"sku":"tea-green","quantity":2}`)
	want := map[string]any{
		"id": 1.0, "user_id": 1.0, "user_name": "Ada", "sku": "tea-green", "quantity": 2.0, "total_cents": 900.0,
		"instance": "orders-1", "reserved_by": "inventory-1", "answered_by": "orders-1",
	}
	if code != http.StatusCreated || len(placed) != len(want) {
		t.Fatalf("answer %d %v", code, placed)
	}
	for name, value := range want {
		if placed[name] != value {
			t.Errorf("%s is %v, want %v", name, placed[name], value)
		}
	}
	response, err := mesh.Client().HTTP().Get("http://orders/api/orders/1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var found order
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil || response.StatusCode != 200 || found.UserName != "Ada" {
		t.Errorf("answer %d %+v %v", response.StatusCode, found, err)
	}
}

func TestOrderThatCannotBeIsRefusedWithItsReason(t *testing.T) {
	mesh := start(t)
	orders := shopv1.NewOrdersClient(mesh.Client().Conn("orders"))
	for body, want := range map[string]struct {
		status int
		reason string
		code   synego.Code
	}{
		`{"user_id":9,"sku":"tea-green","quantity":1}`:  {422, "unknown_user", synego.FailedPrecondition},
		`{"user_id":1,"sku":"tea-green","quantity":11}`: {409, "out_of_stock", synego.FailedPrecondition},
		`{"user_id":1,"sku":"wine","quantity":1}`:       {422, "unknown_sku", synego.FailedPrecondition},
		`{"user_id":0,"sku":"","quantity":0}`:           {400, "invalid_body", synego.InvalidArgument},
	} {
		if code, answer := post(t, mesh, body); code != want.status || answer["reason"] != want.reason || answer["request_id"] == "" {
			t.Errorf("%s: answer %d %v", body, code, answer)
		}
		var in wish
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		_, err := orders.Create(t.Context(), &shopv1.CreateOrder{UserId: in.UserID, Sku: in.SKU, Quantity: in.Quantity})
		var e *synego.Error
		if !errors.As(err, &e) || e.Code != want.code || (want.status != 400 && e.Reason != want.reason) {
			t.Errorf("%s: gRPC error %+v", body, err)
		}
	}
	_, err := orders.Get(t.Context(), &shopv1.GetOrder{Id: 99})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown order gave %v", err)
	}
}

func TestWatchTellsOrdersOfOneUserAndEndsWithTheInstance(t *testing.T) {
	mesh := start(t)
	watch, err := shopv1.NewOrdersClient(mesh.Client().Conn("orders")).Watch(t.Context(), &shopv1.WatchOrders{UserId: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	if code, answer := post(t, mesh, `{"user_id":1,"sku":"tea-green","quantity":2}`); code != http.StatusCreated {
		t.Fatalf("answer %d %v", code, answer)
	}
	if placed, err := watch.Recv(); err != nil || placed.GetUserName() != "Ada" || placed.GetTotalCents() != 900 {
		t.Errorf("saw %v %v", placed, err)
	}
	mesh.Stop("orders")
	_, err = watch.Recv()
	var e *synego.Error
	if !errors.As(err, &e) || e.Reason != synego.ReasonDraining {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestStockIsGivenBackWhenTheOrderCannotBeKept(t *testing.T) {
	goods := &inventory{left: map[string]uint32{"tea-green": 10}}
	service := synego.NewService("front")
	mesh := synegotest.Start(t, service, synegotest.StubGRPC("inventory", func(server grpc.ServiceRegistrar) {
		shopv1.RegisterInventoryServer(server, goods)
	}), synegotest.StubHTTP("users", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"name":"Ada"}`)
	})))
	broken := open(t, t.TempDir())
	if err := broken.close(); err != nil {
		t.Fatal(err)
	}
	shop := &shop{
		service: service, users: mesh.Client().HTTP(), store: broken,
		inventory: shopv1.NewInventoryClient(mesh.Client().Conn("inventory")),
	}
	if _, err := shop.place(t.Context(), wish{UserID: 1, SKU: "tea-green", Quantity: 3}); err == nil {
		t.Fatal("an order was kept in a closed file")
	}
	goods.mutex.Lock()
	defer goods.mutex.Unlock()
	if goods.left["tea-green"] != 10 {
		t.Errorf("%d pieces are left of 10", goods.left["tea-green"])
	}
}
