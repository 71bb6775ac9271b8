"""CPython's way to have an exception raised in another thread, at that thread's next check point.

Imports nothing of hostline.
"""

import ctypes

#: Has this class raised in the thread with this identity. An identity is an unsigned long; as
#: a signed one it overflows on some platforms.
set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)

#: The same with a null pointer: what was set and has not been raised is not raised any more.
clear_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)
