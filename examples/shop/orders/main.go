// Command orders takes orders of the shop: it asks `users` over HTTP who orders, reserves stock at `inventory` over
// gRPC, and answers over both. Its instances share one file of orders (see store.go).
package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	shopv1 "github.com/lostabaddon/synegobase/examples/shop/orders/internal/gen/shop/v1"
	synego "github.com/lostabaddon/synegobase/sdk-go"
)

func main() {
	if err := newService().Run(context.Background()); err != nil {
		slog.Error("orders ended", "error", err)
		os.Exit(1)
	}
}

// newService declares everything; the store opens when the service starts.
func newService() *synego.Service {
	server := grpc.NewServer(synego.ServerOptions()...)
	service := synego.NewService("orders",
		synego.WithVersion("2.0.1"),
		synego.WithRoutes("/api/orders", "/shop.v1.Orders"),
		synego.WithGRPC(server),
	)
	shop := &shop{
		service:   service,
		users:     service.Client().HTTP(),
		inventory: shopv1.NewInventoryClient(service.Client().Conn("inventory")),
	}
	service.OnStart(func(ctx context.Context) (err error) {
		shop.store, err = openStore(dataFolder(ctx, service))
		return err
	})
	service.OnStop(func() error { return shop.store.close() })
	service.Check("store", func(context.Context) error { return shop.store.catchUp() }, synego.Required())
	shop.serveHTTP()
	shopv1.RegisterOrdersServer(server, &ordersServer{shop: shop})
	return service
}

// dataFolder is ORDERS_DATA, else a folder of this mesh and user among the temporary files: all instances of the mesh
// on this machine share it.
func dataFolder(ctx context.Context, service *synego.Service) string {
	if folder := os.Getenv("ORDERS_DATA"); folder != "" {
		return folder
	}
	mesh := "alone"
	if service.Client().Link().State != synego.LinkOff {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		mesh = meshName(ctx, service)
	}
	return filepath.Join(os.TempDir(), "synego-orders-"+mesh+"-"+userName())
}

// meshName waits until the sidecar said the name of the mesh; `shop` when it does not in time.
func meshName(ctx context.Context, service *synego.Service) string {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if mesh := service.Client().Link().Mesh; mesh != "" {
			return mesh
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return "shop"
		}
	}
}
