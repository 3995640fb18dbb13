package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	shopv1 "github.com/lostabaddon/synegobase/examples/shop/orders/internal/gen/shop/v1"
	synego "github.com/lostabaddon/synegobase/sdk-go"
)

// answered is an order and the instance that tells it, which need not be the one that took it.
type answered struct {
	order
	AnsweredBy string `json:"answered_by"`
}

// serveHTTP declares the REST side.
func (s *shop) serveHTTP() {
	synego.Handle(s.service, "POST /api/orders", func(ctx context.Context, in wish) (answered, error) {
		placed, err := s.place(ctx, in)
		told(ctx, "place order", err, "order", placed.ID, "user", in.UserID, "sku", in.SKU)
		return answered{placed, s.service.Instance()}, err
	}, synego.WithStatus(201))
	synego.Handle(s.service, "GET /api/orders/{id}", func(ctx context.Context, in struct {
		ID uint64 `path:"id"`
	}) (answered, error) {
		found, err := s.get(in.ID)
		told(ctx, "read order", err, "order", in.ID)
		return answered{found, s.service.Instance()}, err
	})
}

// ordersServer is the gRPC side.
type ordersServer struct {
	shopv1.UnimplementedOrdersServer
	shop *shop
}

func (o *ordersServer) Create(ctx context.Context, in *shopv1.CreateOrder) (*shopv1.Order, error) {
	wish := wish{UserID: in.GetUserId(), SKU: in.GetSku(), Quantity: in.GetQuantity()}
	if err := wish.Validate(); err != nil {
		err = synego.Errorf(synego.InvalidArgument, "%s", err)
		told(ctx, "place order", err)
		return nil, err
	}
	placed, err := o.shop.place(ctx, wish)
	told(ctx, "place order", err, "order", placed.ID, "user", wish.UserID, "sku", wish.SKU)
	if err != nil {
		return nil, err
	}
	return message(placed), nil
}

func (o *ordersServer) Get(ctx context.Context, in *shopv1.GetOrder) (*shopv1.Order, error) {
	found, err := o.shop.get(in.GetId())
	told(ctx, "read order", err, "order", in.GetId())
	if err != nil {
		return nil, err
	}
	return message(found), nil
}

// Watch sends each order, of either instance, until the caller leaves or this instance drains.
func (o *ordersServer) Watch(in *shopv1.WatchOrders, stream grpc.ServerStreamingServer[shopv1.Order]) error {
	ctx := stream.Context()
	from, err := o.shop.store.position()
	if err != nil {
		return err
	}
	// The head tells the caller that it watches from here on.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	known, _ := synego.FromContext(ctx)
	sent := 0
	err = o.shop.store.watch(ctx, from, known.Draining(), func(placed order) error {
		if in.GetUserId() != 0 && in.GetUserId() != placed.UserID {
			return nil
		}
		sent++
		return stream.Send(message(placed))
	})
	if errors.Is(err, errDraining) {
		err = synego.Errorf(synego.Unavailable, "this instance ends, watch again").WithReason(synego.ReasonDraining)
	}
	told(ctx, "watch orders", err, "sent", sent)
	return err
}

func message(o order) *shopv1.Order {
	return &shopv1.Order{
		Id: o.ID, UserId: o.UserID, UserName: o.UserName, Sku: o.SKU, Quantity: o.Quantity, TotalCents: o.TotalCents,
		Instance: o.Instance, ReservedBy: o.ReservedBy,
	}
}
