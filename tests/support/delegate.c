// A delegate that takes no operator. It tells what options it was given, and the main subgraph's execution plan.
// The structs are the beginnings of those in tensorflow/lite/core/c/common.h.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct ints { int size; int data[]; };
struct context;
typedef int (*planner)(struct context *, struct ints **);
struct context { size_t tensors_size; planner plan; };
struct delegate { void *data; int (*prepare)(struct context *, struct delegate *); void *buffers[3]; int64_t flags; void *builder; };

static char options[256];
static int destroyed;
static struct context *main_subgraph;
static planner plan;

static int prepare(struct context *context, struct delegate *delegate) {
  (void)delegate;
  if (strstr(options, "prepare=fails")) return 1;
  if (!main_subgraph) {
    main_subgraph = context;
    plan = context->plan;
  }
  return 0;
}

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  *options = 0;
  main_subgraph = NULL;
  for (size_t at = 0; at < count; at++) {
    strcat(strcat(strcat(strcat(options, keys[at]), "="), values[at]), ";");
  }
  if (strstr(options, "device=none")) {
    report("no such device");
    return NULL;
  }
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  return made;
}

void tflite_plugin_destroy_delegate(void *delegate) {
  destroyed += delegate != NULL;
  free(delegate);
}

const char *given_options(void) { return options; }

int how_many_destroyed(void) { return destroyed; }

int execution_plan(int *out, int room) {
  struct ints *found;
  if (!main_subgraph || plan(main_subgraph, &found) || found->size > room) return -1;
  memcpy(out, found->data, sizeof(int) * found->size);
  return found->size;
}
