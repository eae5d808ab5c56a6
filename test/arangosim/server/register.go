package server

import (
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// register is the list of all endpoints.
func (s *Server) register() {
	a := s.routes.add
	a(anyone, "POST /_open/auth", body(openAuth))
	a(signedIn, "GET /_api/version", version)
	a(signedIn, "GET /_admin/version", version)
	a(signedIn, "GET /_admin/server/role", serverRole)
	a(signedIn, "GET /_admin/server/id", serverID)
	a(signedIn, "GET /_admin/server/mode", getMode)
	a(admin, "PUT /_admin/server/mode", body(setMode))
	a(anyone, "GET /_admin/server/availability", availability)
	a(readDB, "GET /_admin/status", serverStatus)
	a(signedIn, "GET /_admin/time", systemTime)
	a(signedIn, "GET /_admin/deployment/id", deploymentID)
	a(signedIn, "GET /_admin/license", license)

	a(signedIn, "GET /_api/database", listDatabases(false))
	a(signedIn, "GET /_api/database/user", listDatabases(true))
	a(readDB, "GET /_api/database/current", currentDatabase)
	a(admin, "POST /_api/database", body(createDatabase))
	a(admin, "DELETE /_api/database/{name}", dropDatabase)

	a(readDB, "GET /_api/collection", listCollections)
	a(writeDB, "POST /_api/collection", body(createCollectionHandler))
	a(readDB, "GET /_api/collection/{c}", getCollection)
	a(writeDB, "DELETE /_api/collection/{c}", dropCollection)
	a(readDB, "GET /_api/collection/{c}/properties", getProperties)
	a(writeDB, "PUT /_api/collection/{c}/properties", body(setProperties))
	a(readDB, "GET /_api/collection/{c}/count", countCollection)
	a(readDB, "GET /_api/collection/{c}/figures", figures)
	a(readDB, "GET /_api/collection/{c}/revision", revision)
	a(readDB, "GET /_api/collection/{c}/checksum", checksum)
	a(readDB, "GET /_api/collection/{c}/shards", collectionShards)
	a(readDB, "PUT /_api/collection/{c}/responsibleShard", body(responsibleShard))
	a(writeDB, "PUT /_api/collection/{c}/truncate", truncate)
	a(writeDB, "PUT /_api/collection/{c}/rename", body(renameCollection))
	a(readDB, "PUT /_api/collection/{c}/recalculateCount", recalculateCount)
	for _, what := range []string{"load", "unload", "compact", "loadIndexesIntoMemory"} {
		a(readDB, "PUT /_api/collection/{c}/"+what, acknowledge)
	}
	a(readDB, "GET /_api/key-generators", keyGenerators)

	a(readDB, "GET /_api/document/{c}/{k}", readDocument)
	a(readDB, "HEAD /_api/document/{c}/{k}", readDocument)
	a(readDB, "POST /_api/document/{c}", insertDocuments)
	a(readDB, "PUT /_api/document/{c}/{k}", changeDocument(false))
	a(readDB, "PATCH /_api/document/{c}/{k}", changeDocument(true))
	a(readDB, "DELETE /_api/document/{c}/{k}", removeDocument)
	a(readDB, "PUT /_api/document/{c}", changeDocuments(false))
	a(readDB, "PATCH /_api/document/{c}", changeDocuments(true))
	a(readDB, "DELETE /_api/document/{c}", removeDocuments)
	a(readDB, "POST /_api/import", importDocuments)

	a(readDB, "GET /_api/index", listIndexes)
	a(readDB, "POST /_api/index", body(createIndex))
	a(readDB, "GET /_api/index/{c}/{i}", getIndex)
	a(readDB, "DELETE /_api/index/{c}/{i}", dropIndex)

	a(readDB, "GET /_api/view", listViews)
	a(writeDB, "POST /_api/view", body(createViewHandler))
	a(readDB, "GET /_api/view/{v}", getView(false))
	a(readDB, "GET /_api/view/{v}/properties", getView(true))
	a(writeDB, "PUT /_api/view/{v}/properties", setView(true))
	a(writeDB, "PATCH /_api/view/{v}/properties", setView(false))
	a(writeDB, "PUT /_api/view/{v}/rename", body(renameView))
	a(writeDB, "DELETE /_api/view/{v}", dropView)

	a(readDB, "GET /_api/analyzer", listAnalyzers)
	a(writeDB, "POST /_api/analyzer", body(createAnalyzer))
	a(readDB, "GET /_api/analyzer/{a}", getAnalyzer)
	a(writeDB, "DELETE /_api/analyzer/{a}", removeAnalyzer)
	s.registerGraphs()
	s.registerQueries()
	s.registerUsers()
	s.registerReplication()
	s.registerCluster()
	s.registerFoxx()
	s.registerJobs()
}

func (s *Server) registerGraphs() {
	a := s.routes.add
	a(readDB, "GET /_api/gharial", listGraphs)
	a(writeDB, "POST /_api/gharial", body(createGraph))
	a(readDB, "GET /_api/gharial/{g}", getGraph)
	a(writeDB, "DELETE /_api/gharial/{g}", dropGraph)
	a(readDB, "GET /_api/gharial/{g}/edge", graphCollections(edgeCollections))
	a(readDB, "GET /_api/gharial/{g}/vertex", graphCollections(vertexCollections))
	a(writeDB, "POST /_api/gharial/{g}/edge", editGraph(addEdgeDefinition))
	a(writeDB, "PUT /_api/gharial/{g}/edge/{c}", editGraph(replaceEdgeDefinition))
	a(writeDB, "DELETE /_api/gharial/{g}/edge/{c}", editGraph(removeEdgeDefinition))
	a(writeDB, "POST /_api/gharial/{g}/vertex", editGraph(addVertexCollection))
	a(writeDB, "DELETE /_api/gharial/{g}/vertex/{c}", editGraph(removeVertexCollection))
	for _, kind := range []string{"vertex", "edge"} {
		base := "/_api/gharial/{g}/" + kind + "/{c}"
		a(readDB, "POST "+base, writeGraphDocument(kind, func(w *writer, _ *request, doc *value.Object) (*value.Object, error) { return w.insert(doc) }))
		a(readDB, "GET "+base+"/{k}", readGraphDocument(kind))
		a(readDB, "PUT "+base+"/{k}", writeGraphDocument(kind, func(w *writer, r *request, doc *value.Object) (*value.Object, error) {
			return w.change(r.vars["k"], doc, false)
		}))
		a(readDB, "PATCH "+base+"/{k}", writeGraphDocument(kind, func(w *writer, r *request, doc *value.Object) (*value.Object, error) {
			return w.change(r.vars["k"], doc, true)
		}))
		a(readDB, "DELETE "+base+"/{k}", writeGraphDocument(kind, func(w *writer, r *request, _ *value.Object) (*value.Object, error) {
			return w.remove(r.vars["k"], w.opt.ifMatch)
		}))
	}
	a(readDB, "GET /_api/edges/{c}", edgesOf)
}

func (s *Server) registerQueries() {
	a := s.routes.add
	a(readDB, "POST /_api/cursor", body(createCursor))
	a(readDB, "POST /_api/cursor/{id}", nextBatch)
	a(readDB, "PUT /_api/cursor/{id}", nextBatch)
	a(readDB, "POST /_api/cursor/{id}/{batch}", nextBatch)
	a(readDB, "DELETE /_api/cursor/{id}", deleteCursor)
	a(readDB, "POST /_api/explain", body(explain))
	a(readDB, "GET /_api/query/current", currentQueries)
	a(readDB, "GET /_api/query/slow", slowQueries)
	a(readDB, "DELETE /_api/query/slow", slowQueries)
	a(readDB, "GET /_api/query/properties", body(queryProperties))
	a(readDB, "PUT /_api/query/properties", body(queryProperties))
	a(readDB, "DELETE /_api/query/{id}", killQuery)
	a(readDB, "POST /_api/transaction/begin", body(beginStream))
	a(readDB, "GET /_api/transaction", listStreams)
	a(readDB, "GET /_api/transaction/{id}", getStream)
	a(readDB, "PUT /_api/transaction/{id}", commitStream)
	a(readDB, "DELETE /_api/transaction/{id}", abortStream)
	a(readDB, "GET /_api/aqlfunction", listFunctions)
	a(writeDB, "POST /_api/aqlfunction", body(createFunction))
	a(writeDB, "DELETE /_api/aqlfunction/{name}", deleteFunction)
	a(readDB, "GET /_api/tasks", listTasks)
	a(writeDB, "POST /_api/tasks", body(saveTask))
	a(readDB, "GET /_api/tasks/{id}", getTask)
	a(writeDB, "POST /_api/tasks/{id}", body(saveTask))
	a(writeDB, "PUT /_api/tasks/{id}", body(saveTask))
	a(writeDB, "DELETE /_api/tasks/{id}", deleteTask)
}

func (s *Server) registerUsers() {
	a := s.routes.add
	a(admin, "GET /_api/user", listUsers)
	a(admin, "POST /_api/user", body(createUser))
	a(signedIn, "GET /_api/user/{u}", getUser)
	a(signedIn, "PUT /_api/user/{u}", modifyUser(true))
	a(signedIn, "PATCH /_api/user/{u}", modifyUser(false))
	a(admin, "DELETE /_api/user/{u}", deleteUser)
	a(signedIn, "GET /_api/user/{u}/database", listGrants)
	for _, base := range []string{"/_api/user/{u}/database/{db}", "/_api/user/{u}/database/{db}/{c}"} {
		a(signedIn, "GET "+base, getGrant)
		a(admin, "PUT "+base, body(setGrant))
		a(admin, "DELETE "+base, removeGrant)
	}
}

func (s *Server) registerReplication() {
	a := s.routes.add
	a(readDB, "POST /_api/replication/batch", onDBServer("DBserver", createBatch))
	a(readDB, "PUT /_api/replication/batch/{id}", onDBServer("DBserver", extendBatch))
	a(readDB, "DELETE /_api/replication/batch/{id}", onDBServer("DBserver", deleteBatch))
	a(readDB, "GET /_api/replication/dump", dumpCollection)
	a(readDB, "GET /_api/replication/inventory", inventory)
	a(readDB, "GET /_api/replication/clusterInventory", clusterInventory)
	a(readDB, "GET /_api/replication/revisions/tree", revisionTree)
	a(readDB, "PUT /_api/replication/revisions/ranges", revisionRanges)
	a(readDB, "PUT /_api/replication/revisions/documents", revisionDocuments)
	a(writeDB, "PUT /_api/replication/restore-collection", body(restoreCollection))
	a(writeDB, "PUT /_api/replication/restore-indexes", body(restoreIndexes))
	a(writeDB, "PUT /_api/replication/restore-view", body(restoreView))
	a(writeDB, "PUT /_api/replication/restore-data", restoreData)
	a(readDB, "GET /_api/replication/logger-state", onlySingle(loggerState))
	if !s.atLeast(3, 12, 10) {
		a(readDB, "GET /_api/replication/logger-first-tick", onlySingle(loggerFirstTick))
		a(readDB, "GET /_api/replication/logger-tick-ranges", onlySingle(loggerRanges))
		a(readDB, "GET /_api/replication/server-id", replicationServerID)
		a(readDB, "GET /_api/replication/applier-config", onlySingle(body(applierConfig)))
		a(writeDB, "PUT /_api/replication/applier-config", onlySingle(body(applierConfig)))
		a(writeDB, "PUT /_api/replication/applier-start", onlySingle(applierState))
		a(writeDB, "PUT /_api/replication/applier-stop", onlySingle(applierState))
		a(readDB, "GET /_api/replication/applier-state", onlySingle(applierState))
	}
	a(readDB, "GET /_api/wal/range", onlySingle(walRange))
	a(readDB, "GET /_api/wal/lastTick", onlySingle(walLastTick))
	a(readDB, "GET /_api/wal/tail", onlySingle(walTail))
	if s.atLeast(3, 12, 0) {
		a(readDB, "POST /_api/dump/start", onDBServer("dbserver", startDump))
		a(readDB, "POST /_api/dump/next/{id}", nextDump)
		a(readDB, "DELETE /_api/dump/{id}", finishDump)
	}
	a(admin, "POST /_admin/backup/create", withBackups(body(createHotBackup)))
	a(admin, "POST /_admin/backup/list", withBackups(body(listHotBackups)))
	a(admin, "POST /_admin/backup/delete", withBackups(body(deleteHotBackup)))
	a(admin, "POST /_admin/backup/restore", withBackups(body(restoreHotBackup)))
}

func (s *Server) registerCluster() {
	a := s.routes.add
	a(signedIn, "GET /_api/cluster/endpoints", onlyCluster(clusterEndpoints))
	a(signedIn, "GET /_admin/cluster/health", onlyCluster(clusterHealth))
	a(admin, "POST /_admin/cluster/moveShard", onlyCluster(body(moveShard)))
	a(admin, "POST /_admin/cluster/resignLeadership", onlyCluster(body(resignLeadership)))
	a(admin, "GET /_admin/cluster/maintenance", onlyCluster(getMaintenance))
	a(admin, "PUT /_admin/cluster/maintenance", onlyCluster(setMaintenance))
	a(admin, "GET /_admin/cluster/maintenance/{server}", onlyCluster(serverMaintenance))
	a(admin, "PUT /_admin/cluster/maintenance/{server}", onlyCluster(serverMaintenance))
}

func (s *Server) registerFoxx() {
	a := s.routes.add
	a(readDB, "GET /_api/foxx", listServices)
	a(writeDB, "POST /_api/foxx", putService(true))
	a(readDB, "GET /_api/foxx/service", getService)
	a(writeDB, "PUT /_api/foxx/service", putService(false))
	a(writeDB, "PATCH /_api/foxx/service", putService(false))
	a(writeDB, "DELETE /_api/foxx/service", deleteService)
	for _, name := range []string{"configuration", "dependencies"} {
		a(readDB, "GET /_api/foxx/"+name, serviceOption(name))
		a(writeDB, "PATCH /_api/foxx/"+name, serviceOption(name))
		a(writeDB, "PUT /_api/foxx/"+name, serviceOption(name))
	}
	a(readDB, "GET /_api/foxx/scripts", serviceScripts)
	a(writeDB, "POST /_api/foxx/scripts/{script}", runScript)
	a(writeDB, "POST /_api/foxx/tests", serviceTests)
	a(writeDB, "POST /_api/foxx/development", development(true))
	a(writeDB, "DELETE /_api/foxx/development", development(false))
	a(readDB, "GET /_api/foxx/readme", serviceReadme)
	a(readDB, "GET /_api/foxx/swagger", serviceSwagger)
	a(writeDB, "POST /_api/foxx/commit", commitServices)
	a(writeDB, "POST /_api/foxx/_local/heal", heal)
	a(readDB, "POST /_api/foxx/download", downloadService)
}
