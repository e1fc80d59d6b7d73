/* An NVTX injection library: writes each range and mark of each domain to the file named by NVTX_RECORD.

   NVTX loads the library named by NVTX_INJECTION64_PATH at its first call and asks it to put its own functions
   into a table. Domains, registered strings and category names come through the same way as the ranges. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nvtx3/nvToolsExt.h>

static FILE *record;

static const char *keep(const char *text) { return strdup(text); }

static nvtxDomainHandle_t NVTX_API create_domain(const char *name) { return (nvtxDomainHandle_t)keep(name); }

static nvtxStringHandle_t NVTX_API register_string(nvtxDomainHandle_t domain, const char *text) {
    return (nvtxStringHandle_t)keep(text);
}

static void NVTX_API name_category(nvtxDomainHandle_t domain, uint32_t category, const char *name) {
    fprintf(record, "category\t%s\t%u\t%s\n", (const char *)domain, category, name);
}

static void write_event(const char *kind, nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    int registered = event->messageType == NVTX_MESSAGE_TYPE_REGISTERED;
    const char *message = registered ? (const char *)event->message.registered : event->message.ascii;
    fprintf(record, "%s\t%s\t%u\t", kind, (const char *)domain, event->category);
    if (event->payloadType == NVTX_PAYLOAD_TYPE_DOUBLE)
        fprintf(record, "%.17g", event->payload.dValue);
    else
        fprintf(record, "%lld", (long long)event->payload.llValue);
    fprintf(record, "\t%s\t%s\n", registered ? "registered" : "plain", message);
}

static int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    write_event("push", domain, event);
    return 0;
}

static void NVTX_API mark(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    write_event("mark", domain, event);
    fflush(record);
}

static int NVTX_API pop(nvtxDomainHandle_t domain) {
    fprintf(record, "pop\t%s\n", (const char *)domain);
    fflush(record);
    return 0;
}

int NVTX_API InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table) {
    const NvtxExportTableCallbacks *callbacks = get_export_table(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable table;
    unsigned int size;
    if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
    if (!(record = fopen(getenv("NVTX_RECORD"), "a"))) return 0;
    *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create_domain;
    *table[NVTX_CBID_CORE2_DomainRegisterStringA] = (NvtxFunctionPointer)register_string;
    *table[NVTX_CBID_CORE2_DomainNameCategoryA] = (NvtxFunctionPointer)name_category;
    *table[NVTX_CBID_CORE2_DomainMarkEx] = (NvtxFunctionPointer)mark;
    *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
    *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
    return 1;
}
