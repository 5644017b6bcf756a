"""A room holds no more than its size, and keeps the order."""

import asyncio

from danseg.serve.room import Room


def test_never_more_than_its_size_and_first_come_first_served():
    async def script() -> None:
        room, inside, entered, most = Room(10), 0, [], 0

        async def visit(number: int, size: int) -> None:
            nonlocal inside, most
            async with room.holding(size):
                entered.append(number)
                inside += size
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= size

        sizes = [6, 3, 9, 1, 4, 10, 2, 5, 5, 7]
        await asyncio.gather(*(visit(number, size) for number, size in enumerate(sizes)))
        assert entered == list(range(len(sizes))) and most == 10

    asyncio.run(asyncio.wait_for(script(), 10))


def test_what_is_larger_enters_alone():
    async def script() -> None:
        room = Room(10)
        async with room.holding(25):
            other = asyncio.ensure_future(enter(room, 1))
            await asyncio.sleep(0.01)
            assert not other.done()
        await other

    async def enter(room: Room, size: int) -> None:
        async with room.holding(size):
            pass

    asyncio.run(asyncio.wait_for(script(), 10))


def test_who_is_cancelled_at_the_door_or_inside_takes_no_room_along():
    async def script() -> None:
        room = Room(10)

        async def stay(size: int) -> None:
            async with room.holding(size):
                await asyncio.sleep(60)

        inside = asyncio.ensure_future(stay(10))
        await asyncio.sleep(0)
        at_the_door = [asyncio.ensure_future(stay(size)) for size in (4, 5)]
        await asyncio.sleep(0.01)
        for one in (*at_the_door, inside):
            one.cancel()
        await asyncio.gather(inside, *at_the_door, return_exceptions=True)
        async with room.holding(10):
            pass

    asyncio.run(asyncio.wait_for(script(), 10))
