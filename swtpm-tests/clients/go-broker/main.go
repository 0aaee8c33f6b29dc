// A broker on go-spiffe: asks the agent at SPIFFE_BROKER_SOCKET for a process, as whoever the Workload API says that it is.
//
//	go-broker AGENT x509 PID              each message's IDs, until the stream ends; then the code and the reason
//	go-broker AGENT bundles PID           the trust domains of the first messages of both kinds
//	go-broker AGENT jwt PID AUDIENCE [ID] a token for each identity, or for one
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/exp/proto/spiffe/broker"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

func main() {
	ctx := context.Background()
	source, err := workloadapi.NewX509Source(ctx)
	check(err)
	defer source.Close()
	agent := tlsconfig.AuthorizeID(spiffeid.RequireFromString(os.Args[1]))
	tls := credentials.NewTLS(tlsconfig.MTLSClientConfig(source, source, agent))
	connection, err := grpc.NewClient(os.Getenv("SPIFFE_BROKER_SOCKET"), grpc.WithTransportCredentials(tls))
	check(err)
	defer connection.Close()
	client := broker.NewAPIClient(connection)
	ctx = metadata.AppendToOutgoingContext(ctx, "broker.spiffe.io", "true")
	pid, err := strconv.ParseInt(os.Args[3], 10, 32)
	check(err)
	packed, err := anypb.New(&broker.WorkloadPIDReference{Pid: int32(pid)})
	check(err)
	reference := &broker.WorkloadReference{Reference: packed}
	switch os.Args[2] {
	case "x509":
		stream, err := client.SubscribeToX509SVID(ctx, &broker.SubscribeToX509SVIDRequest{Reference: reference})
		check(err)
		for {
			answer, err := stream.Recv()
			check(err)
			ids := []string{}
			for _, svid := range answer.Svids {
				ids = append(ids, svid.SpiffeId)
			}
			fmt.Println("SVIDS", strings.Join(ids, ","))
		}
	case "bundles":
		x509, err := client.SubscribeToX509Bundles(ctx, &broker.SubscribeToX509BundlesRequest{Reference: reference})
		check(err)
		certificates, err := x509.Recv()
		check(err)
		jwt, err := client.SubscribeToJWTBundles(ctx, &broker.SubscribeToJWTBundlesRequest{Reference: reference})
		check(err)
		keys, err := jwt.Recv()
		check(err)
		for domain := range certificates.Bundles {
			fmt.Println("BUNDLE", domain, len(keys.Bundles[domain]) > 0)
		}
	case "jwt":
		request := &broker.FetchJWTSVIDRequest{Reference: reference, Audience: []string{os.Args[4]}}
		if len(os.Args) > 5 {
			request.SpiffeId = os.Args[5]
		}
		answer, err := client.FetchJWTSVID(ctx, request)
		check(err)
		for _, svid := range answer.Svids {
			fmt.Println("TOKEN", svid.SpiffeId, svid.Svid)
		}
	}
}

func check(err error) {
	if err == nil {
		return
	}
	reason := "-"
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			reason = info.Domain + "/" + info.Reason
		}
	}
	fmt.Println("REFUSED", status.Code(err), reason)
	log.Fatal(err)
}
